package awstrace

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go/tracing"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"imagemanager.internal/test/emulator"
	"imagemanager.internal/test/otlp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cloud is an emulator with a queue, and a client whose calls have spans.
type cloud struct {
	emu    *emulator.Server
	client *sqs.Client
	url    string // of the queue
	spans  otlp.Collector
	tracer trace.Tracer
}

func newCloud(t *testing.T) *cloud {
	t.Helper()
	emu, err := emulator.New(emulator.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(emu)
	t.Cleanup(func() {
		if err := emu.Close(); err != nil {
			t.Error(err)
		}
		srv.Close()
	})
	c := &cloud{emu: emu}
	p := c.spans.Provider()
	c.tracer = p.Tracer("test")
	c.client = sqs.New(sqs.Options{
		Region: "us-east-1", BaseEndpoint: aws.String(srv.URL), HTTPClient: srv.Client(),
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "x", SecretAccessKey: "x"}, nil
		}),
		Retryer: retry.NewStandard(func(o *retry.StandardOptions) {
			o.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 0, nil })
		}),
		TracerProvider: New(p),
	})
	q, err := c.client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("images")})
	if err != nil {
		t.Fatal(err)
	}
	c.url = *q.QueueUrl
	return c
}

// work makes n calls, summed or not, and returns the tree of its trace.
func (c *cloud) work(t *testing.T, n int, summed bool) string {
	t.Helper()
	ctx, s := c.tracer.Start(t.Context(), "work")
	end := func() {}
	if summed {
		ctx, end = Summed(ctx)
	}
	for range n {
		_, _ = c.client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &c.url}) // its span tells
	}
	end()
	s.End()
	return c.spans.Tree(s.SpanContext().TraceID().String(), "rpc.service", "aws.requests", "aws.retries",
		"api.error_code")
}

const call1 = "  SQS.GetQueueAttributes rpc.service=SQS"

// A call has one span, whatever the SDK does inside. Its retries are events.
func TestOneSpanACall(t *testing.T) {
	c := newCloud(t)
	if got := c.work(t, 2, false); got != "work\n"+call1+"\n"+call1+"\n" {
		t.Errorf("two calls:\n%s", got)
	}
	for _, s := range c.spans.Spans("SQS.GetQueueAttributes") {
		if s.Kind != "CLIENT" {
			t.Errorf("it is of kind %s", s.Kind)
		}
	}
	c.emu.Fault(emulator.Fault{Op: "GetQueueAttributes", Status: http.StatusInternalServerError, Times: 2})
	if got := c.work(t, 1, false); got != "work\n"+call1+" +retry +retry\n" {
		t.Errorf("in the third attempt:\n%s", got)
	}
	c.emu.Fault(emulator.Fault{Op: "GetQueueAttributes", Status: http.StatusForbidden, Code: "AccessDenied"})
	if got := c.work(t, 1, false); got != "work\n"+call1+" api.error_code=AccessDenied FAILED\n" {
		t.Errorf("refused:\n%s", got)
	}
}

// A call of nobody's has no span: a poll every 20 seconds would fill any collector.
func TestNoSpanWithoutWork(t *testing.T) {
	c := newCloud(t)
	if n := len(c.spans.Spans("")); n != 0 {
		t.Errorf("%d spans", n)
	}
}

// Of many calls that are summed, the first few have spans, and those that failed.
func TestSummed(t *testing.T) {
	c := newCloud(t)
	c.emu.Fault(emulator.Fault{
		Op: "GetQueueAttributes", Skip: 10, Times: 1, Status: http.StatusForbidden,
		Code: "AccessDenied",
	})
	c.emu.Fault(emulator.Fault{Op: "GetQueueAttributes", Skip: 20, Times: 1, Status: http.StatusInternalServerError})
	want := "work aws.requests=100 aws.retries=1\n" + call1 + "\n" + call1 + "\n" + call1 + "\n" + call1 + "\n" +
		call1 + " api.error_code=AccessDenied FAILED\n"
	if got := c.work(t, 100, true); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// A slow call has a span although it is summed.
func TestSlowCall(t *testing.T) {
	c := newCloud(t)
	ctx, s := c.tracer.Start(t.Context(), "work")
	ctx, end := Summed(ctx)
	for i := range 10 {
		_, one := Provider{c.tracer}.StartSpan(ctx, "S3.GetObject", func(o *tracing.SpanOptions) {
			o.Kind = tracing.SpanKindClient
		})
		if i == 7 {
			one.(*call).began = time.Now().Add(-2 * slow)
		}
		one.End()
	}
	end()
	s.End()
	if n := len(c.spans.Spans("S3.GetObject")); n != shown+1 {
		t.Errorf("%d spans, want the first %d and the slow one", n, shown)
	}
	if work := c.spans.Spans("work")[0].Attributes; work["aws.requests"] != "10" || work["aws.slowest_ms"] < "2000" {
		t.Errorf("%v", work)
	}
}

package awsmetrics

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go/middleware"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/otel/trace"

	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/queue"
	"imagemanager.internal/test/emulator"
)

// cloud is an emulator with a bucket and a queue, and clients that are measured.
type cloud struct {
	emu     *emulator.Server
	s3      *s3.Client
	sqs     *sqs.Client
	url     string // of the queue
	metrics *Metrics
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
	cfg := aws.Config{
		Region: "us-east-1", BaseEndpoint: aws.String(srv.URL), HTTPClient: srv.Client(),
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "x", SecretAccessKey: "x"}, nil
		}),
		Retryer: func() aws.Retryer {
			return retry.NewStandard(func(o *retry.StandardOptions) {
				o.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 0, nil })
			})
		},
	}
	admin := sqs.NewFromConfig(cfg)
	q, err := admin.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("images")})
	if err != nil {
		t.Fatal(err)
	}
	c := &cloud{emu: emu, url: *q.QueueUrl, metrics: New(prometheus.NewRegistry())}
	cfg.APIOptions = []func(*middleware.Stack) error{c.metrics.Instrument}
	c.s3 = s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true })
	c.sqs = sqs.NewFromConfig(cfg)
	return c
}

func (c *cloud) attributes(ctx context.Context) error {
	_, err := c.sqs.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &c.url})
	return err
}

// count is how many calls of attributes ended so.
func (c *cloud) count(result string) float64 {
	return testutil.ToFloat64(c.metrics.calls.WithLabelValues("SQS", "GetQueueAttributes", result))
}

func TestCallsAreMeasured(t *testing.T) {
	for _, tc := range []struct {
		result   string
		fault    emulator.Fault
		attempts float64
	}{
		{ok, emulator.Fault{}, 1},
		{ok, emulator.Fault{Status: http.StatusInternalServerError, Times: 1}, 2},
		{clientError, emulator.Fault{Status: http.StatusForbidden, Code: "AccessDenied"}, 1},
		{throttled, emulator.Fault{Status: http.StatusBadRequest, Code: "RequestThrottled"}, 3},
		{serverError, emulator.Fault{Status: http.StatusInternalServerError}, 3},
		{network, emulator.Fault{Reset: true}, 3},
	} {
		t.Run(tc.result, func(t *testing.T) {
			c := newCloud(t)
			if tc.fault != (emulator.Fault{}) {
				tc.fault.Op = "GetQueueAttributes"
				c.emu.Fault(tc.fault)
			}
			if err := c.attributes(t.Context()); (err == nil) != (tc.result == ok) {
				t.Fatal(err)
			}
			for _, result := range []string{ok, throttled, clientError, serverError, network, canceled} {
				if n := c.count(result); (n == 1) != (result == tc.result) {
					t.Errorf("%s: %g", result, n)
				}
			}
			attempts := c.metrics.attempts.WithLabelValues("SQS", "GetQueueAttributes")
			if n := testutil.ToFloat64(attempts); n != tc.attempts {
				t.Errorf("%g attempts, want %g", n, tc.attempts)
			}
		})
	}
}

// The call of a caller who gives up is neither a success nor a failure of the service.
func TestCanceledCall(t *testing.T) {
	c := newCloud(t)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := c.attributes(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if n := c.count(canceled); n != 1 {
		t.Errorf("%g canceled calls", n)
	}
}

// The trace of a call is the exemplar of its time.
func TestTraceIsExemplar(t *testing.T) {
	c := newCloud(t)
	ctx := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled,
	}))
	if err := c.attributes(ctx); err != nil {
		t.Fatal(err)
	}
	var m dto.Metric
	histogram := c.metrics.duration.WithLabelValues("SQS", "GetQueueAttributes").(prometheus.Histogram)
	if err := histogram.Write(&m); err != nil {
		t.Fatal(err)
	}
	for _, bucket := range m.GetHistogram().GetBucket() {
		if label := bucket.GetExemplar().GetLabel(); len(label) == 1 && label[0].GetName() == "trace_id" {
			return
		}
	}
	t.Errorf("no exemplar: %v", m.GetHistogram())
}

// A missing object is an error of the client. The clients of S3 are measured, too.
func TestMissingObject(t *testing.T) {
	c := newCloud(t)
	if _, err := c.s3.HeadObject(t.Context(), &s3.HeadObjectInput{
		Bucket: aws.String("none"), Key: aws.String("images/a.tar"),
	}); err == nil {
		t.Fatal("found")
	}
	if n := testutil.ToFloat64(c.metrics.calls.WithLabelValues("S3", "HeadObject", clientError)); n != 1 {
		t.Errorf("%g calls", n)
	}
	if n := testutil.CollectAndCount(c.metrics.duration); n != 8 {
		t.Errorf("%d histograms for 8 operations", n)
	}
}

// Every operation that the daemon may call has its series from the start, and no other
// has.
func TestOperationsAreThoseOfTheDaemon(t *testing.T) {
	for service, apis := range map[string][]reflect.Type{
		"SQS": {reflect.TypeFor[queue.API]()},
		"S3":  {reflect.TypeFor[download.API](), reflect.TypeFor[download.BucketAPI]()},
	} {
		var want []string
		for _, api := range apis {
			for i := range api.NumMethod() {
				want = append(want, api.Method(i).Name)
			}
		}
		slices.Sort(want)
		if want = slices.Compact(want); !slices.Equal(want, operations[service]) {
			t.Errorf("%s: %v, the daemon calls %v", service, operations[service], want)
		}
	}
}

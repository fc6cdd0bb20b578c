package emulator_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"
	"go.uber.org/goleak"

	"imagemanager.internal/internal/plainbody"
	"imagemanager.internal/test/emulator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// endpointVariable names an S3 and SQS to run the conformance suite against, instead of
// the emulator: LocalStack's URL, or AWS's. The region and the credentials then come from
// the environment.
const endpointVariable = "CONFORMANCE_ENDPOINT_URL"

// testbed is an S3 and SQS and the SDK's clients for it, made as production makes them:
// config.LoadDefaultConfig, defaults kept.
type testbed struct {
	t   *testing.T
	s3  *s3.Client
	sqs *sqs.Client
	emu *emulator.Server // nil where the endpoint is another
	url string
}

// newTestbed is the endpoint of the environment, or a new emulator.
func newTestbed(t *testing.T) *testbed {
	t.Helper()
	if url := os.Getenv(endpointVariable); url != "" {
		w := &testbed{t: t, url: url}
		w.connect(nil)
		return w
	}
	return emulated(t, emulator.Config{})
}

// emulated is a new emulator, whatever the environment says.
func emulated(t *testing.T, cfg emulator.Config) *testbed {
	t.Helper()
	return serve(t, cfg, httptest.NewServer)
}

// serve starts an emulator behind a server.
func serve(t *testing.T, cfg emulator.Config, start func(h http.Handler) *httptest.Server) *testbed {
	t.Helper()
	cfg.Dir = t.TempDir()
	emu, err := emulator.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	srv := start(emu)
	w := &testbed{t: t, emu: emu, url: srv.URL}
	t.Cleanup(func() {
		if err := emu.Close(); err != nil {
			t.Error(err)
		}
		srv.Close()
		if left, err := os.ReadDir(cfg.Dir); err != nil || len(left) > 0 {
			t.Errorf("the emulator left %v behind: %v", left, err)
		}
	})
	w.connect(srv)
	return w
}

// connect makes the clients. They fail at the first error: a retry would hide what a test
// is about.
func (w *testbed) connect(srv *httptest.Server) {
	client := awshttp.NewBuildableClient() // the one type that AWS_CA_BUNDLE in the environment allows
	options := []func(*config.LoadOptions) error{
		config.WithRetryMaxAttempts(1), config.WithBaseEndpoint(w.url),
		config.WithHTTPClient(client),
	}
	if srv != nil {
		options = append(options, config.WithRegion("us-east-1"),
			config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider("x", "x", "")))
	}
	cfg, err := config.LoadDefaultConfig(w.t.Context(), options...)
	w.check(err)
	if srv != nil && srv.TLS != nil {
		cfg.HTTPClient = srv.Client() // it trusts the server; set here because AWS_CA_BUNDLE would replace its trust
	} else if c, ok := cfg.HTTPClient.(*awshttp.BuildableClient); ok { // a copy that can be told to end its connections
		transport := c.GetTransport()
		w.t.Cleanup(transport.CloseIdleConnections)
		cfg.HTTPClient = &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	cfg.HTTPClient = plainbody.Client{Doer: cfg.HTTPClient}
	w.s3 = s3.NewFromConfig(cfg,
		func(o *s3.Options) { o.UsePathStyle, o.DisableLogOutputChecksumValidationSkipped = true, true })
	w.sqs = sqs.NewFromConfig(cfg)
}

func (w *testbed) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// in is the world with the errors going to a subtest.
func (w *testbed) in(t *testing.T) *testbed {
	return &testbed{t: t, s3: w.s3, sqs: w.sqs, emu: w.emu, url: w.url}
}

func unique(prefix string) string { return fmt.Sprintf("%s-%08x", prefix, rand.Uint32()) }

// newQueue makes a queue that ends with the test.
func (w *testbed) newQueue(attributes map[string]string) string {
	w.t.Helper()
	q, err := w.sqs.CreateQueue(w.t.Context(),
		&sqs.CreateQueueInput{QueueName: aws.String(unique("cim")), Attributes: attributes})
	w.check(err)
	w.t.Cleanup(func() {
		_, err := w.sqs.DeleteQueue(context.WithoutCancel(w.t.Context()), &sqs.DeleteQueueInput{QueueUrl: q.QueueUrl})
		var gone *sqstypes.QueueDoesNotExist
		if err != nil && !errors.As(err, &gone) && w.emu == nil {
			w.t.Error(err)
		}
	})
	return aws.ToString(q.QueueUrl)
}

// newBucket makes a bucket that ends with the test.
func (w *testbed) newBucket() string {
	w.t.Helper()
	name := unique("cim")
	_, err := w.s3.CreateBucket(w.t.Context(), &s3.CreateBucketInput{Bucket: &name})
	w.check(err)
	if w.emu == nil {
		w.t.Cleanup(func() { w.empty(name) })
	}
	return name
}

// empty deletes a bucket and what is in it.
func (w *testbed) empty(bucket string) {
	ctx := context.WithoutCancel(w.t.Context())
	pages := s3.NewListObjectVersionsPaginator(w.s3, &s3.ListObjectVersionsInput{Bucket: &bucket})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			w.t.Error(err)
			return
		}
		for _, v := range page.Versions {
			_, _ = w.s3.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &bucket, Key: v.Key, VersionId: v.VersionId})
		}
		for _, m := range page.DeleteMarkers {
			_, _ = w.s3.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &bucket, Key: m.Key, VersionId: m.VersionId})
		}
	}
	if _, err := w.s3.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: &bucket}); err != nil {
		w.t.Error(err)
	}
}

func (w *testbed) put(bucket, key, content string) *s3.PutObjectOutput {
	w.t.Helper()
	out, err := w.s3.PutObject(w.t.Context(),
		&s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: strings.NewReader(content)})
	w.check(err)
	return out
}

// get reads an object; the input may say more than bucket and key.
func (w *testbed) get(in *s3.GetObjectInput) (string, *s3.GetObjectOutput) {
	w.t.Helper()
	out, err := w.s3.GetObject(w.t.Context(), in)
	w.check(err)
	defer out.Body.Close()
	text, err := io.ReadAll(out.Body)
	w.check(err)
	return string(text), out
}

func (w *testbed) send(queue, body string) string {
	w.t.Helper()
	out, err := w.sqs.SendMessage(w.t.Context(), &sqs.SendMessageInput{QueueUrl: &queue, MessageBody: &body})
	w.check(err)
	return aws.ToString(out.MessageId)
}

// receive polls for up to 10 messages; wait and visibility in seconds.
func (w *testbed) receive(queue string, wait, visibility int32) []sqstypes.Message {
	w.t.Helper()
	out, err := w.sqs.ReceiveMessage(w.t.Context(), &sqs.ReceiveMessageInput{
		QueueUrl: &queue, MaxNumberOfMessages: 10, WaitTimeSeconds: wait, VisibilityTimeout: visibility,
		MessageSystemAttributeNames: []sqstypes.MessageSystemAttributeName{"All"},
		MessageAttributeNames:       []string{"All"},
	})
	w.check(err)
	return out.Messages
}

// one receives exactly one message.
func (w *testbed) one(queue string, visibility int32) sqstypes.Message {
	w.t.Helper()
	got := w.receive(queue, 5, visibility)
	if len(got) != 1 {
		w.t.Fatalf("%d messages, want 1", len(got))
	}
	return got[0]
}

// none checks that there is nothing to receive now.
func (w *testbed) none(queue string) {
	w.t.Helper()
	if got := w.receive(queue, 0, 30); len(got) > 0 {
		w.t.Fatalf("received %q, want nothing", aws.ToString(got[0].Body))
	}
}

func (w *testbed) attributes(queue string) map[string]string {
	w.t.Helper()
	out, err := w.sqs.GetQueueAttributes(w.t.Context(),
		&sqs.GetQueueAttributesInput{QueueUrl: &queue, AttributeNames: []sqstypes.QueueAttributeName{"All"}})
	w.check(err)
	return out.Attributes
}

// code is the API's error code, without the prefix of the query protocol.
func code(err error) string {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return ""
	}
	c := api.ErrorCode()
	return c[strings.LastIndexAny(c, ".#")+1:]
}

// refused checks that an error has one of the codes.
func refused(t *testing.T, err error, codes ...string) {
	t.Helper()
	for _, c := range codes {
		if err != nil && code(err) == c {
			return
		}
	}
	t.Errorf("got %v, want %s", err, strings.Join(codes, " or "))
}

// status is the HTTP status of an answer that the SDK made an error of.
func status(err error) int {
	var response *awshttp.ResponseError
	if errors.As(err, &response) {
		return response.HTTPStatusCode()
	}
	return 0
}

// content is deterministic, of any size, and without a period that a cut at a round
// number would hide.
func content(n int) string {
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%d,", i)
	}
	return b.String()[:n]
}

// failed checks an error by its Go type.
func failed[E error](t *testing.T, err error) {
	t.Helper()
	var want E
	if !errors.As(err, &want) {
		t.Errorf("got %v, want a %T", err, want)
	}
}

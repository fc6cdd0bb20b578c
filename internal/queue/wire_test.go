package queue_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"imagemanager.internal/internal/awserr"
	"imagemanager.internal/internal/queue"
	"imagemanager.internal/test/emulator"
)

// wire is the SDK's clients and an emulator that they talk to.
type wire struct {
	emu *emulator.Server
	sqs *sqs.Client
	s3  *s3.Client
	url string // of a queue
	arn string
}

func newWire(t *testing.T) *wire {
	t.Helper()
	emu, err := emulator.New(emulator.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(emu)
	transport := &http.Transport{}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := emu.Close(); err != nil {
			t.Error(err)
		}
		srv.Close()
	})
	credentials := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: "x", SecretAccessKey: "x"}, nil
	})
	cfg := aws.Config{
		Region: "us-east-1", BaseEndpoint: aws.String(srv.URL),
		HTTPClient: &http.Client{Transport: transport}, Credentials: credentials,
	}
	w := &wire{
		emu: emu, sqs: sqs.NewFromConfig(cfg),
		s3: s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true }),
	}
	w.url, w.arn = w.queue(t, "images")
	return w
}

func (w *wire) queue(t *testing.T, name string) (url, arn string) {
	t.Helper()
	q, err := w.sqs.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String(name)})
	if err != nil {
		t.Fatal(err)
	}
	return *q.QueueUrl, w.attributes(t, *q.QueueUrl)["QueueArn"]
}

func (w *wire) attributes(t *testing.T, url string) map[string]string {
	t.Helper()
	out, err := w.sqs.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{
		QueueUrl: &url, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameAll},
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.Attributes
}

func (w *wire) send(t *testing.T, bodies ...string) {
	t.Helper()
	for _, body := range bodies {
		if _, err := w.sqs.SendMessage(t.Context(),
			&sqs.SendMessageInput{QueueUrl: &w.url, MessageBody: aws.String(body)}); err != nil {
			t.Fatal(err)
		}
	}
}

// client starts a client and its heartbeat.
func (w *wire) client(t *testing.T, cfg queue.Config) *queue.Client {
	t.Helper()
	cfg.URL = w.url
	c := queue.New(w.sqs, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return c
}

// take receives n messages or fails.
func take(t *testing.T, c *queue.Client, n int) []*queue.Message {
	t.Helper()
	msgs, err := c.Receive(t.Context(), n)
	if err != nil || len(msgs) != n {
		t.Fatalf("received %d messages, %v; want %d", len(msgs), err, n)
	}
	return msgs
}

func (w *wire) counts(t *testing.T) (visible, inFlight int) {
	t.Helper()
	attributes := w.attributes(t, w.url)
	for name, n := range map[types.QueueAttributeName]*int{
		types.QueueAttributeNameApproximateNumberOfMessages:           &visible,
		types.QueueAttributeNameApproximateNumberOfMessagesNotVisible: &inFlight,
	} {
		var err error
		if *n, err = strconv.Atoi(attributes[string(name)]); err != nil {
			t.Fatal(err)
		}
	}
	return visible, inFlight
}

// A message is held beyond its visibility time-out, then deleted.
func TestWireHeld(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	extended := make(chan time.Duration, 100)
	c := w.client(t, queue.Config{Wait: time.Second, Visibility: 2 * time.Second, Observer: queue.Observer{
		Extended: func(_ string, margin time.Duration) { extended <- margin },
	}})
	w.send(t, "not JSON")
	m := take(t, c, 1)[0]
	for began := time.Now(); time.Since(began) < 3*time.Second; {
		select {
		case margin := <-extended:
			if margin < time.Second {
				t.Errorf("a margin of %s", margin)
			}
		case <-m.Lost():
			t.Fatal(m.Cause())
		}
	}
	if visible, inFlight := w.counts(t); visible != 0 || inFlight != 1 {
		t.Errorf("%d visible, %d in flight", visible, inFlight)
	}
	if m.ReceiveCount != 1 || m.SentAt.IsZero() || !errors.Is(m.Malformed, queue.ErrMalformed) {
		t.Errorf("%+v", m)
	}
	if err := c.Delete(t.Context(), m); err != nil {
		t.Error(err)
	}
	if err := c.Delete(t.Context(), m); err != nil {
		t.Errorf("again: %v", err)
	}
	if visible, inFlight := w.counts(t); visible+inFlight != 0 {
		t.Errorf("%d visible, %d in flight after the delete", visible, inFlight)
	}
}

// What is deleted behind our back is lost.
func TestWireLost(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	c := w.client(t, queue.Config{Wait: time.Second, Visibility: 4 * time.Second})
	w.send(t, "x")
	m := take(t, c, 1)[0]
	if _, err := w.sqs.PurgeQueue(t.Context(), &sqs.PurgeQueueInput{QueueUrl: &w.url}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-m.Lost():
		if !errors.Is(m.Cause(), queue.ErrLeaseLost) || errors.Is(m.Cause(), queue.ErrExpired) {
			t.Errorf("%v; want the queue's word for it", m.Cause())
		}
	case <-time.After(10 * time.Second):
		t.Fatal("not lost")
	}
}

// Faults of calls and of entries are survived; the SDK does not retry by itself.
func TestWireFaults(t *testing.T) {
	for _, tc := range []struct {
		name  string
		fault emulator.Fault
		calls int // of DeleteMessageBatch, for three messages
	}{
		{"none", emulator.Fault{Op: "Other", Times: 1}, 1},
		{"unavailable", emulator.Fault{Op: "DeleteMessageBatch", Times: 2, Status: 503}, 3},
		{"reset", emulator.Fault{Op: "DeleteMessageBatch", Times: 1, Reset: true}, 2},
		{"done, and the answer lost", emulator.Fault{Op: "DeleteMessageBatch", Times: 1, Lost: true}, 2},
		{"an entry fails", emulator.Fault{
			Op: "DeleteMessageBatch", Times: 1, Entries: 1, Status: 500,
			Code: "InternalError",
		}, 2},
		{"all entries fail", emulator.Fault{
			Op: "DeleteMessageBatch", Times: 2, Entries: -1, Status: 500,
			Code: "InternalError",
		}, 3},
		{"never answered, once", emulator.Fault{Op: "DeleteMessageBatch", Times: 1, Hang: true}, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWire(t)
			c := w.client(t, queue.Config{
				Wait: time.Second, CallTimeout: 300 * time.Millisecond,
				Linger: 50 * time.Millisecond,
			})
			w.send(t, "a", "b", "c")
			msgs := take(t, c, 3)
			w.emu.Fault(tc.fault)
			errs := make(chan error)
			for _, m := range msgs {
				go func() { errs <- c.Delete(t.Context(), m) }()
			}
			for range msgs {
				if err := <-errs; err != nil {
					t.Error(err)
				}
			}
			if n := w.emu.Calls("DeleteMessageBatch"); n != tc.calls {
				t.Errorf("%d calls, want %d", n, tc.calls)
			}
			if visible, inFlight := w.counts(t); visible+inFlight != 0 {
				t.Errorf("%d visible, %d in flight", visible, inFlight)
			}
		})
	}
}

// A poll that fails is one request; one that is never answered ends soon after its wait.
func TestWireReceiveFaults(t *testing.T) {
	for _, tc := range []struct {
		name  string
		fault emulator.Fault
		class awserr.Class
		most  time.Duration
	}{
		{
			"unavailable",
			emulator.Fault{Op: "ReceiveMessage", Status: 503, Code: "ServiceUnavailable"},
			awserr.Server,
			time.Second,
		},
		{
			"throttled",
			emulator.Fault{Op: "ReceiveMessage", Status: 400, Code: "RequestThrottled"},
			awserr.Throttled,
			time.Second,
		},
		{"reset", emulator.Fault{Op: "ReceiveMessage", Reset: true}, awserr.Network, time.Second},
		{"never answered", emulator.Fault{Op: "ReceiveMessage", Hang: true}, awserr.Timeout, 3 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWire(t)
			c := w.client(t, queue.Config{Wait: time.Second, Slack: 500 * time.Millisecond})
			w.emu.Fault(tc.fault)
			began := time.Now()
			_, err := c.Receive(t.Context(), 10)
			if awserr.Classify(err) != tc.class || w.emu.Calls("ReceiveMessage") != 1 || time.Since(began) > tc.most {
				t.Errorf("%v after %s and %d calls", err, time.Since(began), w.emu.Calls("ReceiveMessage"))
			}
			w.emu.Clear()
			w.send(t, "x")
			take(t, c, 1)
		})
	}
}

// The poll in flight at the stop is drained, and what it brings goes back at once.
func TestWireDrain(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	c := w.client(t, queue.Config{})
	ctx, stop := context.WithCancel(t.Context())
	got := make(chan []*queue.Message, 1)
	go func() {
		msgs, err := c.Receive(ctx, 10)
		if err != nil {
			t.Error(err)
		}
		got <- msgs
	}()
	for w.emu.Calls("ReceiveMessage") == 0 {
		<-time.After(time.Millisecond)
	}
	stop()
	w.send(t, "x")
	msgs := <-got
	if len(msgs) != 1 {
		t.Fatalf("%d messages", len(msgs))
	}
	if err := c.Release(t.Context(), msgs[0], 0); err != nil {
		t.Error(err)
	}
	if m := take(t, c, 1)[0]; m.ReceiveCount != 2 {
		t.Errorf("received %d times", m.ReceiveCount)
	}
}

// A message that is delivered twice is held, and deleted, once.
func TestWireRedelivered(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	c := w.client(t, queue.Config{Wait: time.Second})
	w.send(t, "x")
	w.emu.Fault(emulator.Fault{Op: "ReceiveMessage", Times: 1, Redeliver: true})
	first, second := take(t, c, 1)[0], take(t, c, 1)[0]
	if first.ID != second.ID {
		t.Fatalf("%s and %s", first.ID, second.ID)
	}
	if err := errors.Join(c.Delete(t.Context(), first), c.Delete(t.Context(), second)); err != nil {
		t.Error(err)
	}
	if visible, inFlight := w.counts(t); visible+inFlight != 0 || w.emu.Calls("DeleteMessageBatch") != 1 {
		t.Errorf("%d visible, %d in flight, %d calls", visible, inFlight, w.emu.Calls("DeleteMessageBatch"))
	}
}

func TestWireDeadLetter(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	dead, _ := w.queue(t, "dead")
	c := w.client(t, queue.Config{Wait: time.Second, DeadLetterURL: dead})
	w.send(t, "not JSON")
	m := take(t, c, 1)[0]
	if err := c.DeadLetter(t.Context(), m, "not\x00JSON", 2); err != nil {
		t.Fatal(err)
	}
	if visible, inFlight := w.counts(t); visible+inFlight != 0 {
		t.Errorf("%d visible, %d in flight", visible, inFlight)
	}
	out, err := w.sqs.ReceiveMessage(t.Context(),
		&sqs.ReceiveMessageInput{QueueUrl: &dead, MessageAttributeNames: []string{"All"}})
	if err != nil || len(out.Messages) != 1 || *out.Messages[0].Body != "not JSON" {
		t.Fatalf("%v, %v", err, out)
	}
	for name, want := range map[string]string{
		queue.AttributeReason: "not\uFFFDJSON", queue.AttributeAttempts: "2",
		queue.AttributeOriginal: m.ID,
	} {
		if got := aws.ToString(out.Messages[0].MessageAttributes[name].StringValue); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// Notifications in every envelope name the key that was put.
func TestWireNotifications(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	c := w.client(t, queue.Config{Wait: time.Second})
	if _, err := w.s3.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("demo")}); err != nil {
		t.Fatal(err)
	}
	_, err := w.s3.PutBucketNotificationConfiguration(t.Context(), &s3.PutBucketNotificationConfigurationInput{
		Bucket: aws.String("demo"),
		NotificationConfiguration: &s3types.NotificationConfiguration{QueueConfigurations: []s3types.QueueConfiguration{
			{QueueArn: &w.arn, Events: []s3types.Event{"s3:ObjectCreated:*"}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := take(t, c, 1)[0].Notification; len(n.Objects) != 0 || n.Ignored[0].Reason != queue.ReasonTestEvent {
		t.Errorf("%+v, want a test event", n)
	}
	for name, envelope := range map[string]emulator.Envelope{
		"S3": emulator.Direct, "SNS": emulator.SNS, "EventBridge": emulator.EventBridge,
		"EventBridge in SNS": emulator.EventBridgeInSNS,
	} {
		for _, key := range []string{"images/a.tar", "images/a b+c%20d.tar", "images/日本&=;?.tar"} {
			w.emu.Deliver(emulator.Delivery{Envelope: envelope})
			if _, err := w.s3.PutObject(t.Context(),
				&s3.PutObjectInput{
					Bucket: aws.String("demo"), Key: &key,
					Body: strings.NewReader("bytes"),
				}); err != nil {
				t.Fatal(err)
			}
			m := take(t, c, 1)[0]
			if m.Malformed != nil || len(m.Notification.Objects) != 1 {
				t.Fatalf("%s: %v, %s", name, m.Malformed, m.Body)
			}
			if o := m.Notification.Objects[0]; o.Bucket != "demo" || o.Key != key || o.Size != 5 || o.ETag == "" {
				t.Errorf("%s: %+v, want key %q", name, o, key)
			}
			if err := c.Delete(t.Context(), m); err != nil {
				t.Error(err)
			}
		}
	}
}

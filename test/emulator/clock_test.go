package emulator_test

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"imagemanager.internal/test/emulator"
)

func stopped(t *testing.T) (*testbed, *emulator.ManualClock) {
	clock := emulator.NewManualClock(time.Date(2026, 11, 1, 10, 0, 0, 0, time.UTC))
	return emulated(t, emulator.Config{Clock: clock}), clock
}

func (w *testbed) extend(q string, handle *string, seconds int32) error {
	_, err := w.sqs.ChangeMessageVisibility(w.t.Context(),
		&sqs.ChangeMessageVisibilityInput{QueueUrl: &q, ReceiptHandle: handle, VisibilityTimeout: seconds})
	return err
}

func (w *testbed) remove(q string, handle *string) {
	w.t.Helper()
	_, err := w.sqs.DeleteMessage(w.t.Context(), &sqs.DeleteMessageInput{QueueUrl: &q, ReceiptHandle: handle})
	w.check(err)
}

func TestClockVisibility(t *testing.T) {
	w, clock := stopped(t)
	q := w.newQueue(nil)
	w.send(q, "a")
	m := w.one(q, 30)
	clock.Advance(30*time.Second - 1)
	w.none(q)
	clock.Advance(1)
	again := w.one(q, 30)
	w.remove(q, m.ReceiptHandle) // a stale handle succeeds, and the message stays
	w.counts(q, 0, 1)
	w.remove(q, again.ReceiptHandle)
	w.counts(q, 0, 0)
}

// An extension that comes too late is none the less one: see extend for who says so.
func TestClockLateExtension(t *testing.T) {
	w, clock := stopped(t)
	for name, c := range map[string]struct {
		received bool // by another meanwhile
		deleted  bool
		seconds  int32         // asked for
		want     time.Duration // until the message is seen
		code     string
	}{
		"nobody else has it":            {seconds: 60, want: 60 * time.Second},
		"nobody else has it, given up":  {seconds: 0},
		"another has it, longer":        {received: true, seconds: 60, want: 60 * time.Second},
		"another has it, shorter":       {received: true, seconds: 5, want: 5 * time.Second},
		"another has it, given up":      {received: true, seconds: 0},
		"it is deleted":                 {deleted: true, seconds: 60, code: "InvalidParameterValue"},
		"another had it and deleted it": {received: true, deleted: true, seconds: 60, code: "InvalidParameterValue"},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			q := w.newQueue(nil)
			w.send(q, "a")
			m := w.one(q, 10)
			clock.Advance(10 * time.Second)
			latest := m
			if c.received {
				latest = w.one(q, 30)
			}
			if c.deleted {
				w.remove(q, latest.ReceiptHandle)
			}
			err := w.extend(q, m.ReceiptHandle, c.seconds)
			if c.code != "" {
				refused(t, err, c.code)
				return
			}
			w.check(err)
			if c.want > 0 {
				clock.Advance(c.want - 1)
				w.none(q)
				clock.Advance(1)
			}
			w.one(q, 30)
		})
	}
}

func TestClockTwelveHours(t *testing.T) {
	w, clock := stopped(t)
	q := w.newQueue(nil)
	w.send(q, "a")
	m := w.one(q, 43_200)
	w.check(w.extend(q, m.ReceiptHandle, 43_200)) // at the moment of the receive all of it is left
	clock.Advance(time.Second)
	refused(t, w.extend(q, m.ReceiptHandle, 43_200), "InvalidParameterValue", "InvalidParameterValueException")
	w.check(w.extend(q, m.ReceiptHandle, 43_199))
	clock.Advance(12*time.Hour - time.Second)
	w.one(q, 30)
}

func TestClockRetention(t *testing.T) {
	w, clock := stopped(t)
	q := w.newQueue(map[string]string{"MessageRetentionPeriod": "60"})
	w.send(q, "old")
	clock.Advance(59 * time.Second)
	w.send(q, "new")
	clock.Advance(time.Second)
	if m := w.one(q, 30); *m.Body != "new" {
		t.Errorf("got %q", *m.Body)
	}
	w.counts(q, 0, 1)
}

func TestClockDelay(t *testing.T) {
	w, clock := stopped(t)
	q := w.newQueue(map[string]string{"DelaySeconds": "10"})
	w.send(q, "a")
	if a := w.attributes(q); a["ApproximateNumberOfMessagesDelayed"] != "1" ||
		a["ApproximateNumberOfMessagesNotVisible"] != "0" {
		t.Errorf("%v", a)
	}
	clock.Advance(10 * time.Second)
	w.one(q, 30)
	if a := w.attributes(q); a["ApproximateNumberOfMessagesDelayed"] != "0" ||
		a["ApproximateNumberOfMessagesNotVisible"] != "1" {
		t.Errorf("received: %v", a)
	}
}

// A handle is of one queue, and cannot be made up.
func TestForgedHandles(t *testing.T) {
	w := emulated(t, emulator.Config{})
	q, other := w.newQueue(nil), w.newQueue(nil)
	w.send(q, "a")
	raw, err := base64.StdEncoding.DecodeString(*w.one(q, 300).ReceiptHandle)
	w.check(err)
	for place := range raw {
		forged := slices.Clone(raw)
		forged[place] ^= 1
		failed[*types.ReceiptHandleIsInvalid](t, w.extend(q, aws.String(base64.StdEncoding.EncodeToString(forged)), 0))
	}
	failed[*types.ReceiptHandleIsInvalid](t, w.extend(other, aws.String(base64.StdEncoding.EncodeToString(raw)), 0))
	w.check(w.extend(q, aws.String(base64.StdEncoding.EncodeToString(raw)), 0))
}

// poll receives in the background, for up to 20 seconds; the channel gives what came, and
// is closed after an error.
func (w *testbed) poll(ctx context.Context, q string) <-chan []types.Message {
	got := make(chan []types.Message, 1)
	go func() {
		out, err := w.sqs.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: &q, WaitTimeSeconds: 20})
		if err != nil {
			close(got)
			return
		}
		got <- out.Messages
	}()
	return got
}

func TestPolls(t *testing.T) {
	w, clock := stopped(t)
	t.Run("end with their wait", func(t *testing.T) {
		q := w.in(t).newQueue(nil)
		got := w.poll(t.Context(), q)
		w.until("it waits", func() bool { return w.emu.Waiting(q) == 1 })
		clock.Advance(20 * time.Second)
		if m, ok := <-got; !ok || len(m) != 0 {
			t.Errorf("%v", m)
		}
	})
	t.Run("are woken by the end of a visibility", func(t *testing.T) {
		q := w.in(t).newQueue(nil)
		w.send(q, "a")
		w.one(q, 5)
		got := w.poll(t.Context(), q)
		w.until("it waits", func() bool { return w.emu.Waiting(q) == 1 })
		clock.Advance(5 * time.Second)
		if m := <-got; len(m) != 1 {
			t.Errorf("%v", m)
		}
	})
	t.Run("that were cancelled consume nothing", func(t *testing.T) {
		q := w.in(t).newQueue(nil)
		ctx, cancel := context.WithCancel(t.Context())
		got := w.poll(ctx, q)
		w.until("it waits", func() bool { return w.emu.Waiting(q) == 1 })
		cancel()
		<-got
		w.until("the emulator knows", func() bool { return w.emu.Waiting(q) == 0 })
		w.send(q, "a")
		if m := w.one(q, 30); m.Attributes["ApproximateReceiveCount"] != "1" {
			t.Errorf("%v", m.Attributes)
		}
	})
	t.Run("find their queue deleted", func(t *testing.T) {
		q := w.in(t).newQueue(nil)
		got := w.poll(t.Context(), q)
		w.until("it waits", func() bool { return w.emu.Waiting(q) == 1 })
		_, err := w.sqs.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &q})
		w.in(t).check(err)
		if m, ok := <-got; ok {
			t.Errorf("%v, want an error", m)
		}
	})
	t.Run("share what comes", func(t *testing.T) {
		q := w.in(t).newQueue(nil)
		one, two := w.poll(t.Context(), q), w.poll(t.Context(), q)
		w.until("they wait", func() bool { return w.emu.Waiting(q) == 2 })
		w.send(q, "a")
		w.send(q, "b")
		if a, b := <-one, <-two; len(a) != 1 || len(b) != 1 || *a[0].Body == *b[0].Body {
			t.Errorf("%v, %v", a, b)
		}
	})
}

func TestCloseEndsPolls(t *testing.T) {
	w := emulated(t, emulator.Config{})
	q := w.newQueue(nil)
	got := w.poll(t.Context(), q)
	w.until("it waits", func() bool { return w.emu.Waiting(q) == 1 })
	w.check(w.emu.Close())
	if m, ok := <-got; ok {
		t.Errorf("%v, want an error", m)
	}
	_, err := w.sqs.ListQueues(t.Context(), &sqs.ListQueuesInput{})
	if status(err) != http.StatusServiceUnavailable {
		t.Errorf("after Close: %v", err)
	}
}

func TestTooManyInFlight(t *testing.T) {
	w := emulated(t, emulator.Config{InFlight: 2})
	q := w.newQueue(nil)
	for range 3 {
		w.send(q, "x")
	}
	if got := w.receive(q, 0, 300); len(got) != 2 {
		t.Fatalf("%d messages, want 2", len(got))
	}
	_, err := w.sqs.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &q})
	failed[*types.OverLimit](t, err)
	if got := w.receive(q, 1, 300); len(got) != 0 { // a long poll finds nothing
		t.Errorf("%v", got)
	}
}

func TestOtherRegion(t *testing.T) {
	w := emulated(t, emulator.Config{})
	b := unique("cim")
	_, err := w.s3.CreateBucket(t.Context(),
		&s3.CreateBucketInput{
			Bucket:                    &b,
			CreateBucketConfiguration: &s3types.CreateBucketConfiguration{LocationConstraint: "eu-central-1"},
		})
	w.check(err)
	_, err = w.s3.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &b, Key: aws.String("k")})
	var response *awshttp.ResponseError
	if !errors.As(err, &response) || response.HTTPStatusCode() != http.StatusMovedPermanently ||
		response.Response.Header.Get("X-Amz-Bucket-Region") != "eu-central-1" {
		t.Errorf("got %v", err)
	}
	_, err = w.s3.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &b, Key: aws.String("k")},
		func(o *s3.Options) { o.Region = "eu-central-1" })
	failed[*s3types.NoSuchKey](t, err)
}

func TestPresignedExpires(t *testing.T) {
	clock := emulator.NewManualClock(time.Now())
	w := emulated(t, emulator.Config{Clock: clock})
	b := w.newBucket()
	w.put(b, "k", "x")
	signed, err := s3.NewPresignClient(w.s3).
		PresignGetObject(t.Context(), &s3.GetObjectInput{Bucket: &b, Key: aws.String("k")},
			s3.WithPresignExpires(time.Minute))
	w.check(err)
	for _, want := range []int{http.StatusOK, http.StatusForbidden} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, signed.URL, nil)
		w.check(err)
		resp, err := http.DefaultClient.Do(req)
		w.check(err)
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s, want %d", resp.Status, want)
		}
		clock.Advance(2 * time.Minute)
	}
	http.DefaultClient.CloseIdleConnections()
}

// With CheckPolicy, S3 may notify only a queue whose policy says so, for that bucket.
func TestCheckPolicy(t *testing.T) {
	w := emulated(t, emulator.Config{CheckPolicy: true})
	b, other, q := w.newBucket(), w.newBucket(), w.newQueue(nil)
	cfg := s3types.QueueConfiguration{
		QueueArn: aws.String(w.attributes(q)["QueueArn"]),
		Events:   []s3types.Event{"s3:ObjectCreated:*"},
	}
	refused(t, w.configure(b, cfg), "InvalidArgument")
	w.allow(other, q)
	refused(t, w.configure(b, cfg), "InvalidArgument")
	w.allow(b, q)
	w.check(w.configure(b, cfg))
}

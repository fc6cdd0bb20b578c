package queue

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go"

	"imagemanager.internal/internal/awserr"
)

// What is sent: everything explicitly, because SQS and the SDK take a zero for "not set".
func TestReceiveRequest(t *testing.T) {
	for _, tc := range []struct {
		name             string
		n                int
		cfg              Config
		most, wait, hide int32
	}{
		{"as it comes", 3, Config{}, 3, 20, 60},
		{"more than SQS gives", 64, Config{Wait: 2 * time.Second, Visibility: 90 * time.Second}, 10, 2, 90},
		{"a short visibility shortens the poll", 10, Config{Visibility: 30 * time.Second}, 10, 15, 30},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				tc.cfg.URL = testURL
				if msgs, err := New(f, tc.cfg).Receive(t.Context(), tc.n); err != nil || len(msgs) != 0 {
					t.Fatalf("%d messages, %v", len(msgs), err)
				}
				in := f.receives[0]
				if *in.QueueUrl != testURL || in.MaxNumberOfMessages != tc.most || in.WaitTimeSeconds != tc.wait ||
					in.VisibilityTimeout != tc.hide {
					t.Errorf("asked %s for %d, wait %d, visibility %d",
						*in.QueueUrl, in.MaxNumberOfMessages, in.WaitTimeSeconds, in.VisibilityTimeout)
				}
				if len(in.MessageSystemAttributeNames) != len(systemAttributes) {
					t.Errorf("asked for the attributes %v", in.MessageSystemAttributeNames)
				}
			})
		})
	}
}

func TestReceiveMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := New(f, Config{URL: testURL})
		f.put(goodBody, "not JSON")
		f.messages[0].trace = "Root=1-5759e988-bd862e3fe1be46a994272793"
		sent := time.Now()
		pass(7 * time.Second)
		first := receive(t, c, 2)
		if m := first[0]; m.ID != "m1" || m.ReceiveCount != 1 || !m.SentAt.Equal(sent) ||
			!m.ReceivedAt.Equal(time.Now()) ||
			m.TraceHeader != "Root=1-5759e988-bd862e3fe1be46a994272793" || m.Body != goodBody || m.Malformed != nil ||
			m.Notification.Objects[0].Key != "images/a.tar" {
			t.Errorf("%+v", m)
		}
		if m := first[1]; !errors.Is(m.Malformed, ErrMalformed) || m.Body != "not JSON" ||
			len(m.Notification.Objects) != 0 {
			t.Errorf("%+v", m)
		}
		pass(time.Minute)
		if m := receive(t, c, 2)[0]; m.ReceiveCount != 2 {
			t.Errorf("%+v", m)
		}
	})
}

// A poll never outlives wait + slack, and what went wrong is left to awserr.
func TestReceiveErrors(t *testing.T) {
	hang := func(ctx context.Context, _ string) error {
		<-ctx.Done()
		return ctx.Err()
	}
	for _, tc := range []struct {
		name  string
		fail  error
		after func(context.Context, string) error
		class awserr.Class
		took  time.Duration
	}{
		{"never answered", nil, hang, awserr.Timeout, 30 * time.Second},
		{"denied", apiError("AccessDenied", smithy.FaultClient), nil, awserr.Denied, 0},
		{"no queue", apiError("AWS.SimpleQueueService.NonExistentQueue", smithy.FaultClient), nil, awserr.NotFound, 0},
		{"throttled", apiError("RequestThrottled", smithy.FaultClient), nil, awserr.Throttled, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				f.fail, f.after = func(string, string) error { return tc.fail }, tc.after
				f.put(goodBody)
				began := time.Now()
				msgs, err := New(f, Config{URL: testURL}).Receive(t.Context(), 10)
				if len(msgs) != 0 || awserr.Classify(err) != tc.class || time.Since(began) != tc.took {
					t.Errorf("%d messages, %v after %s", len(msgs), err, time.Since(began))
				}
				if f.count("receive") != 1 {
					t.Errorf("%d calls", f.count("receive"))
				}
			})
		})
	}
}

// No call is made for nothing, or to a queue that cannot work.
func TestReceiveNot(t *testing.T) {
	ended, cancel := context.WithCancelCause(t.Context())
	stopping := errors.New("stopping")
	cancel(stopping)
	for _, tc := range []struct {
		name    string
		stopped bool
		n       int
		url     string
		err     error
	}{
		{"stopped", true, 10, testURL, stopping},
		{"no permit", false, 0, testURL, nil},
		{"FIFO", false, 10, testURL + ".fifo", ErrFIFO},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake()
			ctx := t.Context()
			if tc.stopped {
				ctx = ended
			}
			msgs, err := New(f, Config{URL: tc.url}).Receive(ctx, tc.n)
			if len(msgs) != 0 || !errors.Is(err, tc.err) || f.count("receive") != 0 {
				t.Errorf("%d messages, %v, %d calls", len(msgs), err, f.count("receive"))
			}
		})
	}
}

// The end of the context does not cut a poll in flight: what it brings is returned, and
// can be given back.
func TestDrain(t *testing.T) {
	for _, tc := range []struct {
		name    string
		drain   time.Duration
		arrives time.Duration // after the stop; 0: nothing
		took    time.Duration // from the stop on
		msgs    int
		class   awserr.Class
	}{
		{"a message arrives", 0, 3 * time.Second, 3 * time.Second, 1, awserr.Other},
		{"nothing arrives", 0, 0, 15 * time.Second, 0, awserr.Other},
		{"bounded, in time", 4 * time.Second, 3 * time.Second, 3 * time.Second, 1, awserr.Other},
		{"bounded, too late", 2 * time.Second, 3 * time.Second, 2 * time.Second, 0, awserr.Other},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				c := New(f, Config{URL: testURL, Drain: tc.drain})
				ctx, stop := context.WithCancel(t.Context())
				time.AfterFunc(5*time.Second, stop)
				if tc.arrives > 0 {
					time.AfterFunc(5*time.Second+tc.arrives, func() { f.put(goodBody) })
				}
				began := time.Now()
				msgs, err := c.Receive(ctx, 10)
				if len(msgs) != tc.msgs || time.Since(began) != 5*time.Second+tc.took ||
					(err != nil) != (tc.name == "bounded, too late") {
					t.Fatalf("%d messages, %v, %s after the stop", len(msgs), err, time.Since(began)-5*time.Second)
				}
				for _, m := range msgs {
					if err := c.Release(t.Context(), m, 0); err != nil || f.visible() != 1 {
						t.Errorf("released: %v, %d visible", err, f.visible())
					}
				}
			})
		})
	}
}

// Nothing is remembered of a poll once it has returned: no timer, no goroutine, whatever
// becomes of its context later.
func TestDrainEndsWithThePoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := New(f, Config{URL: testURL, Wait: time.Second})
		ctx, stop := context.WithCancel(t.Context())
		for range 3 {
			if _, err := c.Receive(ctx, 1); err != nil {
				t.Fatal(err)
			}
		}
		stop()
		pass(time.Minute)
	})
}

// Every poll is observed once, with its messages or its error, but not one that was cut
// off by a stop.
func TestPollIsObserved(t *testing.T) {
	for _, tc := range []struct {
		name   string
		bodies []string
		fail   error
		stop   time.Duration // after the poll has begun; 0: never
		want   string
	}{
		{"messages", []string{goodBody, goodBody}, nil, 0, "2 messages, <nil>"},
		{"none", nil, nil, 0, "0 messages, <nil>"},
		{"refused", nil, apiError("AccessDenied", smithy.FaultClient), 0, "0 messages, denied"},
		{"cut off", nil, nil, time.Second, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, got := newFake(), ""
				f.fail = func(string, string) error { return tc.fail }
				f.put(tc.bodies...)
				c := New(f, Config{URL: testURL, Drain: time.Second, Observer: Observer{
					Polled: func(msgs []*Message, err error) {
						got += fmt.Sprintf("%d messages, ", len(msgs))
						if err == nil {
							got += "<nil>"
							return
						}
						got += string(awserr.Classify(err))
					},
				}})
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				if tc.stop > 0 {
					time.AfterFunc(tc.stop, stop)
				}
				_, _ = c.Receive(ctx, 10)
				if got != tc.want {
					t.Errorf("observed %q, want %q", got, tc.want)
				}
			})
		})
	}
}

// The client that the program uses fits.
var _ API = (*sqs.Client)(nil)

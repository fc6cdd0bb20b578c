package queue

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/smithy-go"

	"imagemanager.internal/internal/awserr"
)

func TestDeadLetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c, stop := running(t, f, Config{DeadLetterURL: testURL + "-dead"})
		defer stop()
		f.put("not JSON")
		f.messages[0].trace = "Root=1-5759e988-bd862e3fe1be46a994272793"
		m := receive(t, c, 1)[0]
		f.faults(func(operation, _ string) error {
			if operation == "send" {
				return apiError("ServiceUnavailable", smithy.FaultServer)
			}
			return nil
		})
		if err := c.DeadLetter(t.Context(), m, "no JSON", 3); !errors.Is(err, ErrNotCopied) ||
			awserr.Classify(err) != awserr.Server || f.count("delete") != 0 {
			t.Errorf("%v, %d deletes: what could not be copied is not deleted", err, f.count("delete"))
		}
		if n := f.count("send"); n != copyTries {
			t.Errorf("the copy was tried %d times, want %d", n, copyTries)
		}
		pass(5 * time.Minute)
		if isLost(m) || f.visible() != 0 {
			t.Error("what could not be copied is held still")
		}
		f.faults(func(operation, _ string) error {
			if operation == "delete" {
				return apiError("AccessDenied", smithy.FaultClient)
			}
			return nil
		})
		if err := c.DeadLetter(t.Context(), m, "no\x00 \xffJSON", 3); awserr.Classify(err) != awserr.Denied ||
			errors.Is(err, ErrNotCopied) {
			t.Errorf("%v", err)
		}
		f.faults(nil)
		if err := c.DeadLetter(t.Context(), m, "no JSON", 3); err != nil || f.left() != 0 {
			t.Errorf("%v, %d left", err, f.left())
		}
		if len(f.sends) != 1 {
			t.Fatalf("%d copies, want one", len(f.sends))
		}
		in := f.sends[0]
		for name, want := range map[string]string{
			AttributeReason: "no\uFFFD \uFFFDJSON", AttributeAttempts: "3",
			AttributeOriginal: "m1",
		} {
			if got := *in.MessageAttributes[name].StringValue; got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		if *in.QueueUrl != testURL+"-dead" || *in.MessageBody != "not JSON" ||
			*in.MessageSystemAttributes["AWSTraceHeader"].StringValue != m.TraceHeader {
			t.Errorf("sent %s to %s", *in.MessageBody, *in.QueueUrl)
		}
	})
}

func TestDeadLetterNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c, stop := running(t, f, Config{})
		defer stop()
		m := held(t, f, c, 1)[0]
		if err := c.DeadLetter(t.Context(), m, "r", 1); !errors.Is(err, ErrNoDeadLetter) {
			t.Errorf("%v, want ErrNoDeadLetter", err)
		}
		pass(2 * time.Minute)
		if isLost(m) || f.visible() != 0 {
			t.Error("what was not dead-lettered is held still")
		}
		c.cfg.DeadLetterURL = testURL + "-dead"
		f.faults(func(operation, handle string) error {
			if operation == "change" && handle != "" {
				return apiError("ReceiptHandleIsInvalid", smithy.FaultClient)
			}
			return nil
		})
		pass(time.Minute)
		if err := c.DeadLetter(t.Context(), m, "r", 1); !errors.Is(err, ErrLeaseLost) || len(f.sends) != 0 ||
			f.count("delete") != 0 {
			t.Errorf("%v, %d copies, %d deletes; want ErrLeaseLost and nothing done",
				err, len(f.sends), f.count("delete"))
		}
	})
}

// One send that fails is followed by another.
func TestDeadLetterAfterOneFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		var r record
		c, stop := running(t, f, Config{DeadLetterURL: testURL + "-dead", Observer: r.observer()})
		defer stop()
		m := held(t, f, c, 1)[0]
		f.faults(func(operation, _ string) error {
			if operation == "send" && f.count("send") == 1 {
				return apiError("InternalFailure", smithy.FaultServer)
			}
			return nil
		})
		if err := c.DeadLetter(t.Context(), m, "r", 1); err != nil || len(f.sends) != 1 || f.left() != 0 {
			t.Errorf("%v, %d copies, %d left", err, len(f.sends), f.left())
		}
		if n := r.failures("dead-letter"); n != 1 {
			t.Errorf("the observer was told of %d failures", n)
		}
	})
}

// What no later try can change is not tried again; a message that is lost meanwhile is
// somebody else's to copy, and what stops the caller stops the tries.
func TestDeadLetterGivesUp(t *testing.T) {
	dead := Config{DeadLetterURL: testURL + "-dead"}
	for _, tc := range []struct {
		name  string
		fault error
		lose  bool
		ends  bool
		want  error
	}{
		{name: "denied", fault: apiError("AccessDenied", smithy.FaultClient), want: ErrNotCopied},
		{
			name: "missing", fault: apiError("AWS.SimpleQueueService.NonExistentQueue", smithy.FaultClient),
			want: ErrNotCopied,
		},
		{name: "too large", fault: apiError("InvalidParameterValue", smithy.FaultClient), want: ErrNotCopied},
		{name: "lost", fault: apiError("ServiceUnavailable", smithy.FaultServer), lose: true, want: ErrLeaseLost},
		{name: "ended", fault: apiError("ServiceUnavailable", smithy.FaultServer), ends: true, want: ErrNotCopied},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				c, stop := running(t, f, dead)
				defer stop()
				m := held(t, f, c, 1)[0]
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				f.faults(func(operation, _ string) error {
					if operation != "send" {
						return nil
					}
					if tc.lose {
						c.leases.mu.Lock()
						defer c.leases.mu.Unlock()
						c.leases.recordLossLocked(m.lease, ErrExpired)
					}
					if tc.ends {
						cancel()
					}
					return tc.fault
				})
				began := time.Now()
				err := c.DeadLetter(ctx, m, "r", 1)
				if !errors.Is(err, tc.want) || errors.Is(err, ErrNotCopied) && tc.lose || f.count("send") != 1 ||
					time.Since(began) > 0 {
					t.Errorf("%v after %d sends and %s", err, f.count("send"), time.Since(began))
				}
			})
		})
	}
}

// The dead-letter queue is proved to be missing by SQS's own word alone.
func TestProbeDeadLetter(t *testing.T) {
	for _, tc := range []struct {
		name, url string
		fault     error
		unfit     bool
		class     awserr.Class
	}{
		{name: "none configured", fault: apiError("AccessDenied", smithy.FaultClient)},
		{name: "there", url: testURL + "-dead"},
		{
			name: "missing", url: testURL + "-dead", fault: apiError("QueueDoesNotExist", smithy.FaultClient),
			unfit: true,
			class: awserr.NotFound,
		},
		{
			name: "missing, as of old", url: testURL + "-dead",
			fault: apiError("AWS.SimpleQueueService.NonExistentQueue", smithy.FaultClient), unfit: true,
			class: awserr.NotFound,
		},
		{name: "FIFO", url: testURL + "-dead.fifo", unfit: true, class: awserr.Other},
		{
			name: "denied", url: testURL + "-dead", fault: apiError("AccessDenied", smithy.FaultClient),
			class: awserr.Denied,
		},
		{
			name: "not now", url: testURL + "-dead", fault: apiError("ServiceUnavailable", smithy.FaultServer),
			class: awserr.Server,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake()
			f.faults(func(string, string) error { return tc.fault })
			c := New(f, Config{URL: testURL, DeadLetterURL: tc.url})
			err := c.ProbeDeadLetter(t.Context())
			if errors.Is(err, ErrUnfit) != tc.unfit || (err == nil) != (tc.class == "") || err != nil &&
				awserr.Classify(err) != tc.class {
				t.Errorf("%v, of class %s", err, awserr.Classify(err))
			}
			if f.count("send") != 0 {
				t.Error("a probe sends something")
			}
		})
	}
}

package queue

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/smithy-go"

	"imagemanager.internal/internal/awserr"
)

// together does something to all messages at once and returns what came of each.
func together(msgs []*Message, do func(*Message) error) []error {
	errs := make([]error, len(msgs))
	var all sync.WaitGroup
	for i, m := range msgs {
		all.Go(func() { errs[i] = do(m) })
	}
	all.Wait()
	return errs
}

// held returns n messages received from a fake that has no others.
func held(t *testing.T, f *fakeSQS, c *Client, n int) []*Message {
	t.Helper()
	f.put(slices.Repeat([]string{goodBody}, n)...)
	var msgs []*Message
	for len(msgs) < n {
		msgs = append(msgs, receive(t, c, min(10, n-len(msgs)))...)
	}
	return msgs
}

// Deletes and releases at about the same time share calls of up to ten.
func TestBatches(t *testing.T) {
	for _, tc := range []struct {
		n     int
		sizes string
	}{{1, "[1]"}, {9, "[9]"}, {10, "[10]"}, {25, "[10 10 5]"}} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake()
			c := New(f, Config{URL: testURL})
			msgs := held(t, f, c, tc.n)
			began := time.Now()
			if err := errors.Join(together(msgs,
				func(m *Message) error { return c.Release(t.Context(), m, 0) })...); err != nil {
				t.Error(err)
			}
			if f.sizes("change") != tc.sizes || f.visible() != tc.n {
				t.Errorf("%d releases: batches %s, %d visible", tc.n, f.sizes("change"), f.visible())
			}
			if took := time.Since(began); took > 5*time.Millisecond {
				t.Errorf("%d releases took %s", tc.n, took)
			}
			msgs = nil
			for len(msgs) < tc.n {
				msgs = append(msgs, receive(t, c, min(10, tc.n-len(msgs)))...)
			}
			if err := errors.Join(together(msgs,
				func(m *Message) error { return c.Delete(t.Context(), m) })...); err != nil {
				t.Error(err)
			}
			if f.sizes("delete") != tc.sizes || f.left() != 0 {
				t.Errorf("%d deletes: batches %s, %d left", tc.n, f.sizes("delete"), f.left())
			}
			checkLeases(t, c, 0)
		})
	}
}

// Each call returns the result of its own entry, and only what failed is tried again.
func TestEntriesOfABatch(t *testing.T) {
	for _, tc := range []struct {
		name    string
		code    string
		fault   smithy.ErrorFault
		times   int // how often the second message's entry fails
		want    error
		class   awserr.Class
		batches string
		left    int
	}{
		{"once, not our fault", "InternalError", smithy.FaultServer, 1, nil, "", "[3 1]", 0},
		{"throttled, as if it were our fault", "RequestThrottled", smithy.FaultClient, 2, nil, "", "[3 1 1]", 0},
		{"never gets better", "InternalError", smithy.FaultServer, 99, nil, awserr.Server, "[3 1 1 1 1]", 1},
		{"our fault", "SomethingNew", smithy.FaultClient, 99, nil, awserr.Other, "[3]", 1},
		{"denied", "AccessDenied", smithy.FaultServer, 99, nil, awserr.Denied, "[3]", 1},
		{"already gone", "ReceiptHandleIsInvalid", smithy.FaultClient, 99, nil, "", "[3]", 1},
		{"expired", "InvalidParameterValue", smithy.FaultClient, 99, ErrLeaseLost, "", "[3]", 1},
		{"not in flight", "MessageNotInflight", smithy.FaultClient, 99, ErrLeaseLost, "", "[3]", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				var r record
				c := New(f, Config{URL: testURL, Observer: r.observer()})
				msgs := held(t, f, c, 3)
				failures := 0
				f.fail = func(operation, handle string) error {
					if operation != "delete" || handle != "m2#2" || failures == tc.times {
						return nil
					}
					failures++
					return apiError(tc.code, tc.fault)
				}
				errs := together(msgs, func(m *Message) error { return c.Delete(t.Context(), m) })
				if errs[0] != nil || errs[2] != nil {
					t.Errorf("the others: %v, %v", errs[0], errs[2])
				}
				if bad := tc.want != nil || tc.class != ""; bad != (errs[1] != nil) || !errors.Is(errs[1], tc.want) &&
					tc.want != nil || tc.class != "" && awserr.Classify(errs[1]) != tc.class {
					t.Errorf("the second: %v", errs[1])
				}
				if f.sizes("delete") != tc.batches || f.left() != tc.left {
					t.Errorf("batches %s, want %s; %d left, want %d", f.sizes("delete"), tc.batches, f.left(), tc.left)
				}
				if want := f.count("delete") - 1; r.failed["delete"] != want {
					t.Errorf("%d retries reported, want %d", r.failed["delete"], want)
				}
				checkLeases(t, c, 0)
			})
		})
	}
}

// A call that fails as a whole is tried again for all its entries.
func TestBatchCallFails(t *testing.T) {
	for _, tc := range []struct {
		name  string
		err   error // nil: no answer
		times int
		calls int
		class awserr.Class // "": success
	}{
		{"unavailable, then not", apiError("ServiceUnavailable", smithy.FaultServer), 3, 4, ""},
		{"unavailable for long", apiError("ServiceUnavailable", smithy.FaultServer), 99, 5, awserr.Server},
		{"not answered, then answered", nil, 2, 3, ""},
		{"never answered", nil, 99, 5, awserr.Timeout},
		{"no queue", apiError("QueueDoesNotExist", smithy.FaultClient), 99, 1, awserr.NotFound},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				c := New(f, Config{URL: testURL})
				msgs := held(t, f, c, 2)
				f.fail = func(operation, handle string) error {
					if operation == "delete" && handle == "" && f.count("delete") <= tc.times && tc.err != nil {
						return tc.err
					}
					return nil
				}
				f.after = func(ctx context.Context, operation string) error {
					if operation == "delete" && f.count("delete") <= tc.times && tc.err == nil {
						<-ctx.Done()
					}
					return ctx.Err()
				}
				began := time.Now()
				for _, err := range together(msgs, func(m *Message) error { return c.Delete(t.Context(), m) }) {
					if (err != nil) != (tc.class != "") || err != nil && awserr.Classify(err) != tc.class {
						t.Errorf("%v, want %q", err, tc.class)
					}
				}
				if f.count("delete") != tc.calls || time.Since(began) > 40*time.Second {
					t.Errorf("%d calls, want %d; took %s", f.count("delete"), tc.calls, time.Since(began))
				}
			})
		})
	}
}

// A delete that was answered with success, but under a handle that is no longer the
// newest, may have deleted nothing.
func TestDeleteFollowsTheNewestHandle(t *testing.T) {
	for name, answer := range map[string]error{
		"answered with success": nil,
		"answered with failure": apiError("ReceiptHandleIsInvalid", smithy.FaultClient),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				c := New(f, Config{URL: testURL})
				first := held(t, f, c, 1)[0]
				f.edit(func() { f.messages[0].visible = time.Now() })
				second := make(chan *Message, 1)
				f.fail = func(operation, handle string) error {
					if operation == "delete" && handle == "" && f.count("delete") == 1 {
						second <- receive(t, c, 1)[0] // while the first delete is on its way
					}
					if operation == "delete" && handle == "m1#1" {
						return answer
					}
					return nil
				}
				if err := c.Delete(t.Context(), first); err != nil || f.left() != 0 {
					t.Errorf("%v, %d left", err, f.left())
				}
				if err := c.Delete(t.Context(), <-second); err != nil || f.count("delete") != 2 {
					t.Errorf("%v, %d calls", err, f.count("delete"))
				}
				checkLeases(t, c, 0)
			})
		})
	}
}

// A release never touches what has been received again since: it would take the message
// from its new holder.
func TestReleaseLeavesTheNewestAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c, stop := running(t, f, Config{})
		defer stop()
		first := held(t, f, c, 1)[0]
		f.after = func(ctx context.Context, operation string) error {
			if operation == "change" && f.count("change") == 1 {
				<-ctx.Done() // done, but the answer is lost
			}
			return ctx.Err()
		}
		released := make(chan error, 1)
		go func() { released <- c.Release(t.Context(), first, 0) }()
		pass(time.Second)
		second := receive(t, c, 1)[0]
		if err := <-released; err != nil {
			t.Errorf("released: %v", err)
		}
		pass(5 * time.Minute)
		if isLost(second) || f.visible() != 0 {
			t.Errorf("%v, %d visible", second.Cause(), f.visible())
		}
	})
}

// The delay is in whole seconds, never shorter than asked for and never beyond the 12
// hours.
func TestReleaseDelay(t *testing.T) {
	for _, tc := range []struct {
		name         string
		ask, age     time.Duration
		hidden, seen time.Duration // still hidden after, visible after
	}{
		{"at once", 0, 0, -1, 0},
		{"negative", -time.Hour, 0, -1, 0},
		{"a fraction", 100 * time.Millisecond, 0, 999 * time.Millisecond, time.Second},
		{"minutes", 150 * time.Second, time.Hour, 149 * time.Second, 150 * time.Second},
		{"a day", 24 * time.Hour, 0, 11*time.Hour + 58*time.Minute, 12 * time.Hour},
		{"a day, when held for long", 24 * time.Hour, 11 * time.Hour, 58 * time.Minute, time.Hour},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				c, stop := running(t, f, Config{})
				defer stop()
				m := held(t, f, c, 1)[0]
				pass(tc.age)
				if err := c.Release(t.Context(), m, tc.ask); err != nil {
					t.Fatal(err)
				}
				released := time.Now()
				if tc.hidden >= 0 {
					if pass(tc.hidden); f.visible() != 0 {
						t.Errorf("visible after %s", tc.hidden)
					}
				}
				if pass(tc.seen - time.Since(released)); f.visible() != 1 {
					t.Errorf("not visible after %s", tc.seen)
				}
			})
		})
	}
}

// Ending a message twice, in any order, is harmless.
func TestEndedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c, stop := running(t, f, Config{})
		defer stop()
		msgs := held(t, f, c, 2)
		for range 2 {
			if err := c.Delete(t.Context(), msgs[0]); err != nil {
				t.Error(err)
			}
			if err := c.Release(t.Context(), msgs[1], time.Minute); err != nil {
				t.Error(err)
			}
		}
		if err := c.Release(t.Context(), msgs[0], 0); err != nil {
			t.Errorf("released what is deleted: %v", err)
		}
		if f.count("delete") != 1 || f.count("change") != 1 {
			t.Errorf("%d deletes, %d releases; want one each", f.count("delete"), f.count("change"))
		}
		if err := c.Delete(t.Context(), msgs[1]); err != nil || f.left() != 0 {
			t.Errorf("deleted what was released: %v, %d left", err, f.left())
		}
		checkLeases(t, c, 0)
	})
}

// The heartbeat ends with the message, even if the call fails.
func TestEndedIsNotExtended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c, stop := running(t, f, Config{})
		defer stop()
		msgs := held(t, f, c, 2)
		f.fail = func(string, string) error { return apiError("AccessDenied", smithy.FaultClient) }
		if c.Delete(t.Context(), msgs[0]) == nil || c.Release(t.Context(), msgs[1], 0) == nil {
			t.Error("no error")
		}
		f.faults(nil)
		before := f.count("change")
		pass(time.Minute) // whether the call is allowed again is asked once
		if f.visible() != 2 || f.count("change") > before+1 || isLost(msgs[0]) || isLost(msgs[1]) {
			t.Errorf("%d visible, %d calls", f.visible(), f.count("change")-before)
		}
	})
}

// slowly makes deletes take their time, and heed their context.
func slowly(d time.Duration) func(context.Context, string) error {
	return func(ctx context.Context, operation string) error {
		if operation != "delete" {
			return ctx.Err()
		}
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
		return ctx.Err()
	}
}

// A caller whose context ends returns at once; the others of its batch are not disturbed,
// whoever opened it.
func TestCallersLeave(t *testing.T) {
	for patient := range 3 {
		synctest.Test(t, func(t *testing.T) {
			f := newFake()
			c := New(f, Config{URL: testURL})
			msgs := held(t, f, c, 3)
			f.after = slowly(3 * time.Second)
			impatient, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			began := time.Now()
			var all sync.WaitGroup
			for i, m := range msgs {
				all.Go(func() {
					if i == patient {
						if err := c.Delete(t.Context(), m); err != nil || time.Since(began) < 3*time.Second {
							t.Errorf("the patient: %v after %s", err, time.Since(began))
						}
					} else if err := c.Delete(impatient, m); !errors.Is(err, context.DeadlineExceeded) ||
						time.Since(began) != time.Second {
						t.Errorf("an impatient: %v after %s", err, time.Since(began))
					}
				})
				synctest.Wait() // in this order
			}
			all.Wait()
			if f.sizes("delete") != "[3]" {
				t.Errorf("batches %s", f.sizes("delete"))
			}
		})
	}
}

// When nobody waits any more a batch ends, even if others have had their results; and
// what comes too late is not begun.
func TestLastCallerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := New(f, Config{URL: testURL})
		msgs := held(t, f, c, 2)
		f.fail = func(operation, handle string) error {
			if operation == "delete" && handle == "m2#2" {
				return apiError("InternalError", smithy.FaultServer)
			}
			return nil
		}
		f.after = slowly(50 * time.Millisecond)
		ctx, stop := context.WithTimeout(t.Context(), 60*time.Millisecond)
		defer stop()
		errs := together(msgs, func(m *Message) error { return c.Delete(ctx, m) })
		if errs[0] != nil || !errors.Is(errs[1], context.DeadlineExceeded) {
			t.Errorf("%v", errs)
		}
		before := f.count("delete")
		pass(time.Minute)
		if err := c.Delete(ctx, msgs[1]); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("too late: %v", err)
		}
		if f.count("delete") != before {
			t.Errorf("%d calls for nobody", f.count("delete")-before)
		}
	})
}

func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"":                         "unknown",
		"a\tb\nc":                  "a\tb\nc",
		"bell\a":                   "bell\uFFFD",
		"\uFFFE":                   "\uFFFD",
		"bad \xf0\x28":             "bad \uFFFD(",
		string(make([]byte, 4000)): string(slices.Repeat([]byte("\uFFFD"), 341)),
	} {
		if got := attributeText(in); got != want {
			t.Errorf("%.20q gives %.20q (%d bytes), want %.20q (%d)", in, got, len(got), want, len(want))
		}
	}
}

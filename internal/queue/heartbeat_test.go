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

// record collects what an Observer is told.
type record struct {
	mu      sync.Mutex
	margins []time.Duration
	capped  map[string]time.Time
	failed  map[string]int // entries, by operation
}

func (r *record) observer() Observer {
	r.capped, r.failed = map[string]time.Time{}, map[string]int{}
	locked := func(do func()) {
		r.mu.Lock()
		defer r.mu.Unlock()
		do()
	}
	return Observer{
		Extended: func(_ string, margin time.Duration) { locked(func() { r.margins = append(r.margins, margin) }) },
		Capped:   func(id string, end time.Time) { locked(func() { r.capped[id] = end }) },
		Failed:   func(operation string, n int, _ error) { locked(func() { r.failed[operation] += n }) },
	}
}

// failures is how many entries of an operation failed.
func (r *record) failures(operation string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed[operation]
}

func isLost(m *Message) bool {
	select {
	case <-m.Lost():
		return true
	default:
		return false
	}
}

// A hundred messages cost ten calls a period, whether they came in tens or one by one.
func TestHeartbeatCalls(t *testing.T) {
	for _, tc := range []struct {
		name  string
		each  int           // messages a receive
		every time.Duration // between receives
		most  int           // calls a period
	}{
		{"in tens", 10, time.Second, 10},
		{"one by one, all over the period", 1, 290 * time.Millisecond, 11},
		{"in fours", 4, 700 * time.Millisecond, 11},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				var r record
				c, stop := running(t, f, Config{Observer: r.observer()})
				defer stop()
				var msgs []*Message
				for range 100 / tc.each {
					f.put(slices.Repeat([]string{goodBody}, tc.each)...)
					msgs = append(msgs, receive(t, c, tc.each)...)
					pass(tc.every)
				}
				pass(2 * time.Minute)
				before := f.count("change")
				const periods = 20
				pass(periods * 30 * time.Second)
				calls := f.count("change") - before
				t.Logf("%.2f calls a period of 30 s for 100 messages", float64(calls)/periods)
				if calls < 10*periods || calls > tc.most*periods {
					t.Errorf("%d calls in %d periods", calls, periods)
				}
				if slices.ContainsFunc(msgs, isLost) || f.visible() != 0 || slices.Min(r.margins) < 29*time.Second {
					t.Errorf("some are lost, or %d visible, or margin %s", f.visible(), slices.Min(r.margins))
				}
				checkLeases(t, c, 100)
			})
		})
	}
}

// A lease counts from the request, so a message that a poll has waited for is extended at
// once or soon.
func TestLeaseCountsFromTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c, stop := running(t, f, Config{})
		defer stop()
		time.AfterFunc(18*time.Second, func() { f.put(goodBody) })
		receive(t, c, 1)
		pass(11 * time.Second)
		if n := f.count("change"); n != 0 {
			t.Errorf("%d extensions 29 s after the request, want none", n)
		}
		pass(time.Second)
		if n := f.count("change"); n != 1 {
			t.Errorf("%d extensions 30 s after the request, want one", n)
		}
	})
}

// Even an answer that took longer than the whole lease leaves the time to find out
// whether the message is still there.
func TestLateAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.after = func(_ context.Context, operation string) error {
			if operation == "receive" {
				<-time.After(9 * time.Second)
			}
			return nil
		}
		c, stop := running(t, f, Config{Visibility: 10 * time.Second})
		defer stop()
		time.AfterFunc(4*time.Second, func() { f.put(goodBody) })
		m := receive(t, c, 1)[0]
		pass(time.Minute)
		if isLost(m) || f.visible() != 0 {
			t.Errorf("lost: %v; %d visible", m.Cause(), f.visible())
		}
	})
}

// Failures are survived while there is time, and no longer.
func TestHeartbeatFailures(t *testing.T) {
	unavailable := apiError("ServiceUnavailable", smithy.FaultServer)
	for _, tc := range []struct {
		name  string
		until time.Duration // after the receive, calls fail
		err   error         // nil: they hang
		lost  bool
	}{
		{"one call", 31 * time.Second, unavailable, false},
		{"nearly the whole lease", 57 * time.Second, unavailable, false},
		{"denied for a while", 50 * time.Second, apiError("AccessDenied", smithy.FaultClient), false},
		{"never answered for a while", 52 * time.Second, nil, false},
		{"the whole lease", time.Hour, unavailable, true},
		{"never answered", time.Hour, nil, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				began := time.Now()
				failing := func() bool { return time.Since(began) < tc.until }
				f.fail = func(operation, handle string) error {
					if operation == "change" && handle == "" && failing() && tc.err != nil {
						return tc.err
					}
					return nil
				}
				if tc.err == nil { // not even begun: the entries fail as if the call had not arrived
					f.fail = func(operation, handle string) error {
						if operation == "change" && handle != "" && failing() {
							return unavailable
						}
						return nil
					}
					f.after = func(ctx context.Context, operation string) error {
						if operation != "change" || !failing() {
							return nil
						}
						<-ctx.Done()
						return ctx.Err()
					}
				}
				var r record
				c, stop := running(t, f, Config{Observer: r.observer()})
				defer stop()
				f.put(goodBody, goodBody)
				msgs := receive(t, c, 2)
				pass(time.Minute - time.Millisecond)
				if isLost(msgs[0]) || isLost(msgs[1]) {
					t.Fatal("lost before its time")
				}
				pass(time.Millisecond)
				for _, m := range msgs {
					if isLost(m) != tc.lost || tc.lost &&
						(!errors.Is(m.Cause(), ErrExpired) || !errors.Is(m.Cause(), ErrLeaseLost)) {
						t.Errorf("%s: %v", m.ID, m.Cause())
					}
				}
				if r.failed["extend"] == 0 {
					t.Error("no failure was reported")
				}
				if n := f.count("change"); n > 25 {
					t.Errorf("%d calls in one lease: it tries too often", n)
				}
				if tc.lost {
					checkLeases(t, c, 0)
				} else if pass(time.Minute); f.visible() != 0 {
					t.Error("a held message became visible")
				}
			})
		})
	}
}

// An entry that failed under an answer with status 200, or that the answer does not
// mention, is tried again; the others are not.
func TestHeartbeatEntries(t *testing.T) {
	for name, set := range map[string]func(f *fakeSQS){
		"failed": func(f *fakeSQS) {
			f.fail = func(_, handle string) error {
				if handle == "m2#2" && f.calls["change"] == 1 {
					return apiError("InternalError", smithy.FaultServer)
				}
				return nil
			}
		},
		"not mentioned": func(f *fakeSQS) {
			f.mangle = func(ok, failed []string) ([]string, []string) {
				if f.calls["change"] == 1 {
					ok = []string{ok[0], ok[2], "7", "", "x"} // and nonsense
				}
				return ok, failed
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				set(f)
				c, stop := running(t, f, Config{})
				defer stop()
				f.put(goodBody, goodBody, goodBody)
				msgs := receive(t, c, 3)
				pass(45 * time.Second)
				if got := f.sizes("change"); got != "[3 1]" {
					t.Errorf("batches %s, want [3 1]", got)
				}
				pass(2 * time.Minute)
				for _, m := range msgs {
					if isLost(m) {
						t.Errorf("%s: %v", m.ID, m.Cause())
					}
				}
			})
		})
	}
}

// Every code for a handle that is of no use loses the message at once, and only that one.
func TestLostHandle(t *testing.T) {
	for _, code := range []string{
		"ReceiptHandleIsInvalid", "MessageNotInflight", "InvalidParameterValue",
		"AWS.SimpleQueueService.MessageNotInflight", "com.amazonaws.sqs#ReceiptHandleIsInvalid",
	} {
		t.Run(code, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				f.fail = func(operation, handle string) error {
					if operation == "change" && handle == "m2#2" {
						return apiError(code, smithy.FaultClient)
					}
					return nil
				}
				c, stop := running(t, f, Config{})
				defer stop()
				f.put(goodBody, goodBody, goodBody)
				msgs := receive(t, c, 3)
				pass(31 * time.Second)
				if isLost(msgs[0]) || !isLost(msgs[1]) || isLost(msgs[2]) ||
					!errors.Is(msgs[1].Cause(), ErrLeaseLost) ||
					awserr.Code(msgs[1].Cause()) == "" {
					t.Errorf("%v, %v, %v", msgs[0].Cause(), msgs[1].Cause(), msgs[2].Cause())
				}
				if n := f.count("change"); n != 1 {
					t.Errorf("%d calls, want one", n)
				}
				if err := c.Release(t.Context(), msgs[1], 0); !errors.Is(err, ErrLeaseLost) || f.count("change") != 1 {
					t.Errorf("released: %v, want ErrLeaseLost without a call", err)
				}
				checkLeases(t, c, 2)
			})
		})
	}
}

// SQS extends nothing beyond 12 hours, and refuses with a code that means a lost handle
// as well. It is never asked to; the message is reported, and lost a little before they
// are over.
func TestTwelveHours(t *testing.T) {
	for _, tc := range []struct {
		visibility time.Duration
		slow       time.Duration // how much earlier the queue thinks that they are over
	}{
		{time.Minute, 0},
		{time.Hour, 20 * time.Second},
		{7 * time.Hour, 0},
		{12 * time.Hour, 0},
	} {
		t.Run(tc.visibility.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				var r record
				c, stop := running(t, f, Config{Visibility: tc.visibility, Observer: r.observer()})
				defer stop()
				f.put(goodBody)
				began := time.Now()
				m := receive(t, c, 1)[0]
				f.edit(func() { f.messages[0].limit = f.messages[0].limit.Add(-tc.slow) })
				pass(12*time.Hour - time.Minute - time.Second)
				if isLost(m) || f.visible() != 0 || len(r.failed) != 0 {
					t.Fatalf("%v, %d visible, failures %v", m.Cause(), f.visible(), r.failed)
				}
				end := r.capped[m.ID].Sub(began)
				if end < 12*time.Hour-time.Minute || end > 12*time.Hour {
					t.Errorf("capped %s after the receive", end)
				}
				pass(time.Minute + time.Second)
				if !errors.Is(m.Cause(), ErrLimit) || !errors.Is(m.Cause(), ErrLeaseLost) {
					t.Errorf("cause %v, want ErrLimit", m.Cause())
				}
			})
		})
	}
}

// A message that is delivered again while it is held stays held by both, under the newest
// handle.
func TestDeliveredTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c, stop := running(t, f, Config{})
		defer stop()
		f.put(goodBody)
		first := receive(t, c, 1)[0]
		pass(20 * time.Second)
		f.edit(func() { f.messages[0].visible = time.Now() }) // as a standard queue may
		second := receive(t, c, 1)[0]
		pass(5 * time.Minute)
		if isLost(first) || isLost(second) || f.visible() != 0 {
			t.Fatalf("%v, %v, %d visible", first.Cause(), second.Cause(), f.visible())
		}
		changes := f.count("change")
		if err := c.Release(t.Context(), first, 0); err != nil || f.count("change") != changes || f.visible() != 0 {
			t.Errorf("the first released: %v, %d visible; the second still holds it", err, f.visible())
		}
		pass(5 * time.Minute)
		if isLost(second) || f.visible() != 0 {
			t.Fatalf("%v, %d visible", second.Cause(), f.visible())
		}
		if err := c.Delete(t.Context(), second); err != nil || f.left() != 0 {
			t.Errorf("deleted: %v, %d left", err, f.left())
		}
		if err := c.Delete(t.Context(), first); err != nil || f.count("delete") != 1 {
			t.Errorf("deleted again: %v, %d calls", err, f.count("delete"))
		}
		checkLeases(t, c, 0)
	})
}

// When it is delivered again after it was lost, the first holder stays without it, and
// its delete takes the handle of the second.
func TestDeliveredAfterLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.put(goodBody)
		down := true
		f.fail = func(operation, _ string) error {
			if operation == "change" && down {
				return apiError("ServiceUnavailable", smithy.FaultServer)
			}
			return nil
		}
		c, stop := running(t, f, Config{})
		defer stop()
		first := receive(t, c, 1)[0]
		pass(time.Minute)
		f.faults(nil)
		second := receive(t, c, 1)[0]
		pass(time.Minute)
		if !isLost(first) || isLost(second) {
			t.Fatalf("%v, %v", first.Cause(), second.Cause())
		}
		if err := c.Delete(t.Context(), first); err != nil || f.left() != 0 {
			t.Errorf("deleted by the first: %v, %d left", err, f.left())
		}
		if err := c.Delete(t.Context(), first); err != nil || f.count("delete") != 1 {
			t.Errorf("deleted again: %v, %d calls", err, f.count("delete"))
		}
		pass(5 * time.Minute)
		if isLost(second) {
			t.Errorf("what is deleted is not lost: %v", second.Cause())
		}
		if err := c.Release(t.Context(), second, 0); err != nil {
			t.Errorf("released by the second: %v", err)
		}
		if err := c.Delete(t.Context(), first); err != nil || f.count("delete") != 1 {
			t.Errorf("deleted once more: %v, %d calls", err, f.count("delete"))
		}
		checkLeases(t, c, 0)
	})
}

// What becomes of an extension under an old handle says nothing about the newer lease,
// which is extended in its own time.
func TestDeliveredDuringExtension(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c, stop := running(t, f, Config{})
		defer stop()
		f.put(goodBody)
		first := receive(t, c, 1)[0]
		f.faults(func(operation, handle string) error {
			if operation == "change" && handle == "" && f.count("change") == 1 {
				<-time.After(4 * time.Second) // on its way to the queue
			}
			return nil
		})
		pass(31 * time.Second)
		f.edit(func() { f.messages[0].visible = time.Now() })
		second := receive(t, c, 1)[0]
		pass(5 * time.Minute)
		if isLost(first) || isLost(second) || f.visible() != 0 {
			t.Errorf("%v, %v, %d visible", first.Cause(), second.Cause(), f.visible())
		}
	})
}

// An extension that is refused because another holder has just deleted the message is no
// loss.
func TestExtendedDuringDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c, stop := running(t, f, Config{})
		defer stop()
		f.put(goodBody)
		first := receive(t, c, 1)[0]
		f.edit(func() { f.messages[0].visible = time.Now() })
		second := receive(t, c, 1)[0]
		pass(29 * time.Second)
		f.edit(func() { f.after = slowly(4 * time.Second) })
		if err := c.Delete(t.Context(), first); err != nil || f.count("change") == 0 {
			t.Errorf("%v; %d extensions meanwhile", err, f.count("change"))
		}
		pass(5 * time.Minute)
		if isLost(second) {
			t.Errorf("lost: %v", second.Cause())
		}
	})
}

// A lease counts from when the extension was asked for: a slow answer makes it no longer.
func TestSlowAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c, stop := running(t, f, Config{})
		defer stop()
		f.put(goodBody)
		m := receive(t, c, 1)[0]
		f.edit(func() {
			f.after = func(ctx context.Context, _ string) error {
				<-time.After(4 * time.Second)
				return ctx.Err()
			}
		})
		pass(35 * time.Second)
		f.faults(func(string, string) error { return apiError("ServiceUnavailable", smithy.FaultServer) })
		for !isLost(m) {
			if pass(100 * time.Millisecond); f.visible() != 0 && !isLost(m) {
				t.Fatal("visible and not lost")
			}
		}
	})
}

// Run ends with its context, even when a call hangs, and may run again; two at once may
// not.
func TestRunEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.after = func(ctx context.Context, operation string) error {
			if operation == "change" {
				<-ctx.Done()
				<-time.After(time.Second)
			}
			return ctx.Err()
		}
		var r record
		c, stop := running(t, f, Config{Observer: r.observer()})
		f.put(goodBody)
		m := receive(t, c, 1)[0]
		pass(31 * time.Second)
		if err := c.Run(t.Context()); !errors.Is(err, ErrRunning) {
			t.Errorf("a second Run: %v", err)
		}
		stopping := time.Now()
		stop()
		if time.Since(stopping) != time.Second {
			t.Error("Run did not wait for the call in flight")
		}
		if len(r.failed) != 0 {
			t.Errorf("the stop was reported as a failure: %v", r.failed)
		}
		f.edit(func() { f.after = nil })
		if err := c.Release(t.Context(), m, 0); err != nil || f.visible() != 1 {
			t.Errorf("released after the end: %v, %d visible", err, f.visible())
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := c.Run(ctx); err != nil {
			t.Errorf("again: %v", err)
		}
	})
}

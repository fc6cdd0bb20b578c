package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/smithy-go"
)

const goodBody = `{"Records":[{
	"eventSource":"aws:s3","eventName":"ObjectCreated:Put",
	"s3":{"bucket":{"name":"b"},"object":{"key":"images/a.tar"}}
}]}`

// A message goes all the way: received, held for an hour, deleted.
func TestHeldForAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c, stop := running(t, f, Config{})
		defer stop()
		f.put(goodBody)
		m := receive(t, c, 1)[0]
		for range 3600 {
			pass(time.Second)
			if f.visible() != 0 {
				t.Fatal("a held message became visible")
			}
		}
		if n := f.count("change"); n != 120 {
			t.Errorf("%d extensions in an hour, want one in 30 s", n)
		}
		if err := c.Delete(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		if f.left() != 0 || m.Cause() != nil {
			t.Errorf("%d messages left, cause %v", f.left(), m.Cause())
		}
	})
}

// weather is a network and a service that fail, hang and dawdle at random, before and
// after a call has taken effect.
type weather struct {
	mu  sync.Mutex
	rng *rand.Rand
}

func (w *weather) roll(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rng.IntN(n)
}

func (w *weather) before(operation, handle string) error {
	if handle != "" { // an entry of a batch
		if w.roll(20) == 0 {
			return apiError("InternalError", smithy.FaultServer)
		}
		return nil
	}
	<-time.After(time.Duration(w.roll(400)) * time.Millisecond)
	if operation != "receive" && w.roll(4) == 0 {
		return apiError("ServiceUnavailable", smithy.FaultServer)
	}
	return nil
}

func (w *weather) after(ctx context.Context, operation string) error {
	if w.roll(10) == 0 && operation != "receive" { // done, but the answer never comes
		<-ctx.Done()
	}
	select {
	case <-time.After(time.Duration(w.roll(400)) * time.Millisecond):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// The promise that everything else rests on: a message held and not reported lost is
// invisible to everybody else; and what can be done about the others is done: in the end
// nothing is left in the queue.
func TestHeldIsInvisible(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { heldIsInvisible(t, seed) })
		})
	}
}

func heldIsInvisible(t *testing.T, seed uint64) {
	w := &weather{rng: rand.New(rand.NewPCG(seed, 1))}
	f := newFake()
	f.fail, f.after = w.before, w.after
	c, stop := running(t, f, Config{Visibility: 20 * time.Second})
	defer stop()
	for i := range 60 {
		f.put(fmt.Sprintf(`{"n":%d}`, i))
	}
	var mu sync.Mutex
	held := map[*Message]bool{}
	var consumers sync.WaitGroup
	for range 5 {
		consumers.Go(func() {
			for f.left() > 0 {
				msgs, err := c.Receive(t.Context(), 1+w.roll(10))
				if err != nil {
					t.Errorf("receive: %v", err)
					return
				}
				for _, m := range msgs {
					mu.Lock()
					held[m] = true
					mu.Unlock()
					<-time.After(time.Duration(w.roll(90)) * time.Second)
					mu.Lock()
					delete(held, m)
					mu.Unlock()
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+w.roll(60000))*time.Millisecond)
					if w.roll(3) == 0 {
						// if it fails, the message comes back anyway
						_ = c.Release(ctx, m, time.Duration(w.roll(5))*time.Second)
					} else {
						_ = c.Delete(ctx, m) // likewise
					}
					cancel()
				}
			}
		})
	}
	ended := make(chan struct{})
	go func() { consumers.Wait(); close(ended) }()
	for {
		select {
		case <-ended:
			checkLeases(t, c, 0)
			return
		case <-time.After(100 * time.Millisecond):
		}
		synctest.Wait()
		mu.Lock()
		for m := range held {
			if m.Cause() == nil && f.seen(m.ID) {
				t.Errorf("%s is visible and not lost", m.ID)
			}
		}
		mu.Unlock()
	}
}

// seen reports whether a message is in the queue and visible.
func (f *fakeSQS) seen(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.messages {
		if m.id == id {
			return !m.visible.After(time.Now())
		}
	}
	return false
}

// checkLeases checks that the table and the heap hold n leases, in order.
func checkLeases(t *testing.T, c *Client, n int) {
	t.Helper()
	ls := c.leases
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if len(ls.byID) != n || len(ls.schedule) != n {
		t.Errorf("%d leases, %d of them in the heap; want %d", len(ls.byID), len(ls.schedule), n)
	}
	for i, l := range ls.schedule {
		if l.index != i || i > 0 && l.due.Before(ls.schedule[(i-1)/2].due) {
			t.Errorf("lease %s is at %d, says %d, or is out of order", l.id, i, l.index)
		}
	}
}

// Messages that were not received by a client cannot be ended, and do no harm.
func TestNotReceived(t *testing.T) {
	c := New(newFake(), Config{URL: testURL, DeadLetterURL: testURL + "-dead"})
	m := &Message{ID: "m1"}
	for name, err := range map[string]error{
		"delete":      c.Delete(t.Context(), m),
		"release":     c.Release(t.Context(), m, 0),
		"dead-letter": c.DeadLetter(t.Context(), m, "r", 1),
	} {
		if !errors.Is(err, ErrLeaseLost) {
			t.Errorf("%s: %v, want ErrLeaseLost", name, err)
		}
	}
	if m.Lost() != nil || m.Cause() != nil {
		t.Error("a message that was not received is lost")
	}
}

func TestDefaults(t *testing.T) {
	for _, tc := range []struct {
		name     string
		in, want Config
	}{
		{
			"nothing set",
			Config{},
			Config{
				Wait: 20 * time.Second, Visibility: time.Minute, Slack: 10 * time.Second, Drain: 30 * time.Second,
				CallTimeout: 5 * time.Second, Linger: 5 * time.Millisecond,
			},
		},
		{
			"beyond SQS",
			Config{Wait: time.Hour, Visibility: 24 * time.Hour},
			Config{
				Wait: 20 * time.Second, Visibility: 12 * time.Hour, Slack: 10 * time.Second, Drain: 30 * time.Second,
				CallTimeout: 5 * time.Second, Linger: 5 * time.Millisecond,
			},
		},
		{
			"short",
			Config{Visibility: 10 * time.Second, Drain: time.Second},
			Config{
				Wait: 5 * time.Second, Visibility: 10 * time.Second, Slack: 10 * time.Second, Drain: time.Second,
				CallTimeout: 2500 * time.Millisecond, Linger: 5 * time.Millisecond,
			},
		},
		{
			"fractions",
			Config{Wait: 1500 * time.Millisecond, Visibility: 20900 * time.Millisecond},
			Config{
				Wait: time.Second, Visibility: 20 * time.Second, Slack: 10 * time.Second, Drain: 11 * time.Second,
				CallTimeout: 5 * time.Second, Linger: 5 * time.Millisecond,
			},
		},
		{
			"less than SQS can",
			Config{Wait: time.Millisecond, Visibility: time.Millisecond},
			Config{
				Wait: time.Second, Visibility: time.Second, Slack: 10 * time.Second, Drain: 11 * time.Second,
				CallTimeout: 250 * time.Millisecond, Linger: 5 * time.Millisecond,
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := tc.in.withDefaults()
			got.Observer, tc.want.Observer = Observer{}, Observer{}
			if fmt.Sprint(got) != fmt.Sprint(tc.want) {
				t.Errorf("got  %+v\nwant %+v", got, tc.want)
			}
		})
	}
}

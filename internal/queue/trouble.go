package queue

import (
	"context"
	"sync"
	"time"

	"imagemanager.internal/internal/awserr"
)

// probeEvery is the interval between probes of a failing call.
const probeEvery = 5 * time.Second

// trouble is the reason why every call of one kind fails.
type trouble struct {
	mu    sync.Mutex
	err   error // of the last call; nil if any of its entries was answered
	since time.Time
	next  time.Time // when to probe
}

// record records the outcome of a call and reports whether trouble has begun. An entry
// refused for its own fault counts as answered.
func (t *trouble) record(errs []error, now time.Time) (began bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, err := range errs {
		if err == nil || awserr.Classify(err) == awserr.Other {
			t.err = nil
			return false
		}
	}
	if began = t.err == nil; began {
		t.since, t.next = now, now.Add(probeEvery) // callers try again before
	}
	t.err = errs[0]
	return began
}

// probeDue reports whether it is time to probe, and how long to wait before asking again.
// It is never time while other calls are tried anyway.
func (t *trouble) probeDue(now time.Time, tried bool) (probe bool, pause time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		return false, time.Hour
	}
	if tried || t.next.After(now) {
		return false, max(t.next.Sub(now), minPause)
	}
	t.next = now.Add(probeEvery)
	return true, probeEvery
}

// lasting returns the error. It returns nil for a retryable error that is younger than
// the patience.
func (t *trouble) lasting(patience time.Duration) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil && awserr.Retryable(t.err) && time.Since(t.since) < patience {
		return nil
	}
	return t.err
}

// Trouble reports a call without which no message can be held or ended, and the error of
// that call. An error that does not pass by itself, such as a missing right, is reported
// at once; any other after a quarter of the visibility time-out. The error is nil while
// calls succeed or none has been made. Trouble is cheap. It ends by itself: while Run is
// running, the queue is probed every few seconds.
func (c *Client) Trouble() (call string, err error) {
	patience := c.cfg.Visibility / 4
	if err := c.changing.lasting(patience); err != nil {
		return "ChangeMessageVisibility", err
	}
	if err := c.removing.lasting(patience); err != nil {
		return "DeleteMessage", err
	}
	return "", nil
}

// startProbes starts the probes due, and returns how long to wait for the next. A probe
// names a message that does not exist: without the right to make the call, SQS does not
// get as far as to refuse the handle.
func (c *Client) startProbes(ctx context.Context, now time.Time, calls *sync.WaitGroup) time.Duration {
	none := []entry{{handle: "none"}}
	change, pause := c.changing.probeDue(now, c.leases.anyAlive())
	if change {
		calls.Go(func() { c.changeVisibility(ctx, none) })
	}
	remove, other := c.removing.probeDue(now, false)
	if remove {
		calls.Go(func() { c.deleteEntries(ctx, none) })
	}
	return min(pause, other)
}

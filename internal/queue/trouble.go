package queue

import (
	"context"
	"sync"
	"time"

	"imagemanager.internal/internal/awserr"
)

// probeEvery is how often the queue is asked whether a call succeeds again.
const probeEvery = 5 * time.Second

// trouble is why no call of a kind succeeds.
type trouble struct {
	mu    sync.Mutex
	err   error // of the last call; nil if it was answered for any of its entries
	since time.Time
	next  time.Time // when to probe
}

// note takes down what became of a call, and reports whether trouble has begun. An entry
// that the queue refuses for what it is has been answered, too.
func (t *trouble) note(errs []error, now time.Time) (began bool) {
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

// due reports whether it is time to probe, and how long to wait before it is asked again.
// Nothing is probed while something else is tried anyway.
func (t *trouble) due(now time.Time, tried bool) (probe bool, pause time.Duration) {
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

// worth returns the error, unless it may pass by itself and has not lasted so long.
func (t *trouble) worth(patience time.Duration) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil && awserr.Retryable(t.err) && time.Since(t.since) < patience {
		return nil
	}
	return t.err
}

// Trouble names a call without which no message can be held or settled, and the error
// with which it fails: at once if that does not pass by itself, such as a missing right,
// else once it has gone on for a quarter of the visibility time-out. There is no error as
// long as calls succeed or none was made. It is cheap. What it reports ends by itself:
// while Run runs, the queue is asked every few seconds.
func (c *Client) Trouble() (call string, err error) {
	patience := c.cfg.Visibility / 4
	if err := c.changing.worth(patience); err != nil {
		return "ChangeMessageVisibility", err
	}
	if err := c.removing.worth(patience); err != nil {
		return "DeleteMessage", err
	}
	return "", nil
}

// probes starts the probes that are due, and returns how long to wait for the next. A
// probe is about a message that does not exist: without the right to make the call, SQS
// does not get so far as to refuse the handle.
func (c *Client) probes(ctx context.Context, now time.Time, calls *sync.WaitGroup) time.Duration {
	none := []entry{{handle: "none"}}
	change, pause := c.changing.due(now, c.leases.held())
	if change {
		calls.Go(func() { c.change(ctx, none) })
	}
	remove, other := c.removing.due(now, false)
	if remove {
		calls.Go(func() { c.remove(ctx, none) })
	}
	return min(pause, other)
}

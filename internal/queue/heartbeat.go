package queue

import (
	"container/heap"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

var (
	// ErrExpired is the cause of a loss when the lease ran out before it could be
	// extended. It is an ErrLost as well.
	ErrExpired = fmt.Errorf("%w: its visibility time-out ended", ErrLost)
	// ErrLimit is the cause of a loss when the message was held for as long as SQS
	// allows. It is an ErrLost as well.
	ErrLimit = fmt.Errorf("%w: held for 12 hours", ErrLost)
)

// The pause before a failed extension is tried again is a quarter of what is left, within
// these.
const (
	minPause = 250 * time.Millisecond
	maxPause = 30 * time.Second
)

// Run extends the lease of every message held, at half its visibility time-out and in
// batches of ten, until ctx ends. A call that fails loses nothing while there is time to
// try again. A message whose lease runs out, or whose handle the queue no longer accepts,
// is lost: see Message.Lost. Run returns nil when ctx has ended and its goroutines are
// gone; ErrRunning if it runs already.
func (c *Client) Run(ctx context.Context) error {
	if !c.running.CompareAndSwap(false, true) {
		return ErrRunning
	}
	defer c.running.Store(false)
	var calls sync.WaitGroup
	defer calls.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-c.leases.wake:
		}
		beat := c.leases.beat(time.Now())
		c.observeCapped(beat.capped)
		for batch := range slices.Chunk(beat.extend, maxBatch) {
			calls.Go(func() { c.extend(ctx, batch) })
		}
		timer.Reset(min(beat.pause, c.probes(ctx, time.Now(), &calls)))
	}
}

// extension is one lease to be made longer, as it was when that was decided.
type extension struct {
	lease   *lease
	handle  string
	seconds int32
	at      time.Time
}

// beat is what a heartbeat has to do.
type beat struct {
	extend []extension
	capped []capped
	pause  time.Duration // until the next beat
}

// capped tells that a message cannot be extended any further.
type capped struct {
	id  string
	end time.Time
}

// beat takes what is due from the heap. A batch that is not full is filled up with leases
// that are due soon, so that scattered messages find together and a hundred held cost ten
// calls.
func (ls *leases) beat(now time.Time) beat {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	var b beat
	soon := now.Add(ls.period(ls.visibility) / 2)
	for len(ls.first) > 0 {
		l := ls.first[0]
		due := !l.next.After(now)
		fits := len(b.extend)%maxBatch != 0 && !l.busy && !l.last && !l.next.After(soon)
		if !due && !fits {
			break
		}
		ls.look(l, now, &b)
	}
	b.pause = time.Hour
	if len(ls.first) > 0 {
		b.pause = ls.first[0].next.Sub(now)
	}
	return b
}

// look decides on one lease, and when to look at it again. The latter is always later
// than now, or beat would not end.
func (ls *leases) look(l *lease, now time.Time, b *beat) {
	ask := min(ls.visibility, l.limit.Sub(now).Truncate(time.Second))
	longer := ask == ls.visibility || now.Add(ask).After(l.end)
	switch {
	case !l.end.After(now) && l.last:
		ls.lose(l, ErrLimit)
		return
	case !l.end.After(now):
		ls.lose(l, ErrExpired)
		return
	case !longer && !l.last:
		l.last = true
		b.capped = append(b.capped, capped{l.id, l.end})
	case longer && !l.busy && !l.last:
		l.busy = true
		b.extend = append(b.extend, extension{lease: l, handle: l.handle, seconds: seconds(ask), at: now})
	}
	l.next = l.end // in flight, or for the last time: all that can happen is that time runs out
	heap.Fix(&ls.first, l.index)
}

// extend makes one call and notes what became of each lease.
func (c *Client) extend(ctx context.Context, batch []extension) {
	entries := make([]entry, 0, len(batch))
	for _, x := range batch {
		entries = append(entries, entry{handle: x.handle, seconds: x.seconds})
	}
	errs := c.change(ctx, entries)
	now := time.Now()
	var failed []error
	for i, x := range batch {
		switch err := errs[i]; {
		case err == nil:
			c.extended(x, now)
		case gone(err):
			c.leases.refused(x, err, now)
		default:
			failed = append(failed, err)
			c.leases.failed(x, now)
		}
	}
	if len(failed) > 0 && ctx.Err() == nil {
		c.observeFailed("extend", len(failed), failed[0])
	}
}

// extended notes a success.
func (c *Client) extended(x extension, now time.Time) {
	margin, is := c.leases.extended(x, now)
	if f := c.cfg.Observer.Extended; is && f != nil {
		f(x.lease.id, margin)
	}
}

// current tells whether a result is about the lease as it is now: the message may have
// been ended or received anew meanwhile. It is called with mu held.
func (x extension) current() bool {
	return x.lease.alive() && x.lease.busy && x.lease.handle == x.handle
}

// extended notes that the queue has agreed; the new lease counts from when it was asked.
// It returns what was left of the old.
func (ls *leases) extended(x extension, now time.Time) (margin time.Duration, is bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if !x.current() {
		return 0, false
	}
	l := x.lease
	margin = l.end.Sub(now)
	granted := time.Duration(x.seconds) * time.Second
	l.end = x.at.Add(granted)
	l.next = x.at.Add(ls.period(granted))
	l.busy = false
	ls.arrange(l)
	return margin, true
}

// failed notes that nobody knows whether the lease is longer now; it is assumed not to
// be.
func (ls *leases) failed(x extension, now time.Time) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if x.current() {
		ls.postpone(x.lease, now)
	}
}

// postpone lets a failed extension be tried again, while there is time. It is called with
// mu held.
func (ls *leases) postpone(l *lease, now time.Time) {
	l.busy = false
	l.next = now.Add(max(minPause, min(l.end.Sub(now)/4, maxPause)))
	if l.next.After(l.end) {
		l.next = l.end
	}
	ls.arrange(l)
}

// refused notes that the queue does not accept the handle any more. That it was the 12 h
// which were refused is excluded: they are kept well clear of. While another holder
// deletes the message, that may be why; only the outcome of the delete will tell.
func (ls *leases) refused(x extension, err error, now time.Time) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	switch {
	case !x.current():
	case x.lease.deleting > 0:
		ls.postpone(x.lease, now)
	default:
		ls.lose(x.lease, fmt.Errorf("%w: %w", ErrLost, err))
	}
}

func (c *Client) observeCapped(list []capped) {
	for _, m := range list {
		if f := c.cfg.Observer.Capped; f != nil {
			f(m.id, m.end)
		}
	}
}

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
	// extended. It wraps ErrLeaseLost.
	ErrExpired = fmt.Errorf("%w: its visibility time-out ended", ErrLeaseLost)
	// ErrLimit is the cause of a loss when the message was held for as long as SQS
	// allows. It wraps ErrLeaseLost.
	ErrLimit = fmt.Errorf("%w: held for 12 hours", ErrLeaseLost)
)

// A failed extension is tried again after a quarter of what is left of the lease, within
// these limits.
const (
	minPause = 250 * time.Millisecond
	maxPause = 30 * time.Second
)

// Run extends the lease of every message held, at half its visibility time-out and in
// batches of ten, until ctx ends. A call that fails loses nothing while there is time to
// try again. A message is lost when its lease runs out, or when the queue no longer
// accepts its handle: see Message.Lost. Run returns nil after ctx has ended and its
// goroutines are gone. It returns ErrRunning if it is running already.
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
		beat := c.leases.collectDue(time.Now())
		c.observeCapped(beat.capped)
		for batch := range slices.Chunk(beat.extend, maxBatch) {
			calls.Go(func() { c.extend(ctx, batch) })
		}
		timer.Reset(min(beat.pause, c.startProbes(ctx, time.Now(), &calls)))
	}
}

// extension is a request for more time for one lease, as the lease was when it was made.
type extension struct {
	lease   *lease
	handle  string
	seconds int32
	at      time.Time
}

// beat is the work of one heartbeat.
type beat struct {
	extend []extension
	capped []finalLease
	pause  time.Duration // until the next beat
}

// finalLease is a message whose lease cannot be extended any further.
type finalLease struct {
	id  string
	end time.Time
}

// collectDue returns what is due now, and records the leases that have run out. It fills
// up a batch with leases due soon: so the times of scattered messages come together, and
// a hundred messages cost ten calls.
func (ls *leases) collectDue(now time.Time) beat {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	var b beat
	soon := now.Add(ls.period(ls.visibility) / 2)
	for len(ls.schedule) > 0 {
		l := ls.schedule[0]
		due := !l.due.After(now)
		fillsBatch := len(b.extend)%maxBatch != 0 && l.phase == phaseWaiting && !l.due.After(soon)
		if !due && !fillsBatch {
			break
		}
		ls.decideLocked(l, now, &b)
	}
	b.pause = time.Hour
	if len(ls.schedule) > 0 {
		b.pause = ls.schedule[0].due.Sub(now)
	}
	return b
}

// decideLocked moves one lease to its next phase, or to its loss. A lease that goes on is
// due later than now: otherwise collectDue would not end. mu is held.
func (ls *leases) decideLocked(l *lease, now time.Time, b *beat) {
	if !l.end.After(now) {
		cause := ErrExpired
		if l.phase == phaseFinal {
			cause = ErrLimit
		}
		ls.recordLossLocked(l, cause)
		return
	}
	if l.phase == phaseWaiting {
		ask := min(ls.visibility, l.limit.Sub(now).Truncate(time.Second))
		if ask == ls.visibility || now.Add(ask).After(l.end) {
			l.phase = phaseExtending
			b.extend = append(b.extend, extension{lease: l, handle: l.handle, seconds: seconds(ask), at: now})
		} else { // no extension would make it longer
			l.phase = phaseFinal
			b.capped = append(b.capped, finalLease{l.id, l.end})
		}
	}
	l.due = l.end
	heap.Fix(&ls.schedule, l.index)
}

// extend makes one call and records the outcome for each lease.
func (c *Client) extend(ctx context.Context, batch []extension) {
	entries := make([]entry, 0, len(batch))
	for _, x := range batch {
		entries = append(entries, entry{handle: x.handle, seconds: x.seconds})
	}
	errs := c.changeVisibility(ctx, entries)
	now := time.Now()
	var failed []error
	for i, x := range batch {
		switch err := errs[i]; {
		case err == nil:
			c.observeExtended(x, now)
		case handleExpired(err):
			c.leases.recordRefusal(x, err, now)
		default:
			failed = append(failed, err)
			c.leases.retryLater(x, now)
		}
	}
	if len(failed) > 0 && ctx.Err() == nil {
		c.observeFailed("extend", len(failed), failed[0])
	}
}

// observeExtended records a success and tells the observer.
func (c *Client) observeExtended(x extension, now time.Time) {
	margin, current := c.leases.recordExtension(x, now)
	if f := c.cfg.Observer.Extended; current && f != nil {
		f(x.lease.id, margin)
	}
}

// current reports whether the lease is still as it was when the extension was requested:
// the message may have been ended or received again since. mu is held.
func (x extension) current() bool {
	return x.lease.alive() && x.lease.phase == phaseExtending && x.lease.handle == x.handle
}

// recordExtension records that the queue has agreed. The new lease counts from the
// request. It returns what was left of the old lease, and whether the result still
// mattered.
func (ls *leases) recordExtension(x extension, now time.Time) (margin time.Duration, current bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if !x.current() {
		return 0, false
	}
	l := x.lease
	margin = l.end.Sub(now)
	granted := time.Duration(x.seconds) * time.Second
	l.end = x.at.Add(granted)
	l.due = x.at.Add(ls.period(granted))
	l.phase = phaseWaiting
	ls.rescheduleLocked(l)
	return margin, true
}

// retryLater records that an extension failed. The queue may have granted it
// nevertheless; we assume not.
func (ls *leases) retryLater(x extension, now time.Time) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if x.current() {
		ls.postponeLocked(x.lease, now)
	}
}

// postponeLocked schedules another try of a failed extension before the lease ends. mu is
// held.
func (ls *leases) postponeLocked(l *lease, now time.Time) {
	l.phase = phaseWaiting
	l.due = now.Add(max(minPause, min(l.end.Sub(now)/4, maxPause)))
	if l.due.After(l.end) {
		l.due = l.end
	}
	ls.rescheduleLocked(l)
}

// recordRefusal records that the queue no longer accepts the handle. The 12 h cannot be
// the reason: limitMargin keeps us clear of them. But another holder may be deleting the
// message; then only the outcome of the delete will tell.
func (ls *leases) recordRefusal(x extension, err error, now time.Time) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	switch {
	case !x.current():
	case x.lease.deleting > 0:
		ls.postponeLocked(x.lease, now)
	default:
		ls.recordLossLocked(x.lease, fmt.Errorf("%w: %w", ErrLeaseLost, err))
	}
}

func (c *Client) observeCapped(list []finalLease) {
	for _, m := range list {
		if f := c.cfg.Observer.Capped; f != nil {
			f(m.id, m.end)
		}
	}
}

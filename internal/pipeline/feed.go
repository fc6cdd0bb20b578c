package pipeline

import (
	"context"
	"errors"
	"time"
)

// trickleEvery is how long it takes at most until an image that another process put into the journal is noticed.
const trickleEvery = 2 * time.Second

// resume sends every image whose attempt a crash cut off on its way, at once and without waiting for its message; then those whose
// attempt failed while no message waited for them, when they are due.
func (p *Pipeline) resume(ctx, work context.Context, out chan<- *Job) {
	due, err := p.Store.Unfinished(ctx)
	if err != nil && !errors.Is(err, context.Canceled) {
		p.Log.Error().Err(err).Msg("unfinished images cannot be read")
	}
	ids := make([]int64, 0, len(due))
	for _, img := range due {
		if img.Attempt > 0 {
			ids = append(ids, img.ID)
		}
	}
	for ctx.Err() == nil {
		for _, id := range ids {
			p.awaitFit(ctx)
			if job, fresh := p.take(id, nil); fresh {
				p.dispatch(ctx, work, job, out)
			}
		}
		ids = p.awaitDue(ctx)
	}
}

// awaitFit waits until work may be taken, or ctx ends.
func (p *Pipeline) awaitFit(ctx context.Context) {
	for ctx.Err() == nil && !p.admit() {
		wait(ctx, time.Second)
	}
}

// awaitDue waits until parked images are due and returns them; nothing when it was only woken or ctx ended.
func (p *Pipeline) awaitDue(ctx context.Context) []int64 {
	p.mu.Lock()
	now, next := time.Now(), time.Hour
	var ids []int64
	for id, at := range p.parked {
		if at.After(now) {
			next = min(next, at.Sub(now))
			continue
		}
		ids = append(ids, id)
	}
	p.mu.Unlock()
	if len(ids) > 0 {
		return ids
	}
	timer := time.NewTimer(next)
	defer timer.Stop()
	select {
	case <-p.wake:
	case <-timer.C:
	case <-ctx.Done():
	}
	return nil
}

// trickle sends the images that `consumer submit` or a backfill put into the journal, one at a time: what is notified live has the
// other workers for itself.
func (p *Pipeline) trickle(ctx, work context.Context, out chan<- *Job) {
	for ctx.Err() == nil {
		if !p.admit() || !p.trickleOnce(ctx, work, out) {
			wait(ctx, trickleEvery)
		}
	}
}

// trickleOnce sends what is there now and tells whether any attempt was made.
func (p *Pipeline) trickleOnce(ctx, work context.Context, out chan<- *Job) (sent bool) {
	images, err := p.Store.Untouched(ctx)
	if err != nil && ctx.Err() == nil {
		p.Log.Error().Err(err).Msg("images to be taken up cannot be read")
	}
	for _, img := range images {
		job, fresh := p.take(img.ID, nil)
		if !fresh { // its message was faster
			continue
		}
		p.dispatch(ctx, work, job, out)
		select {
		case <-job.over:
			sent = sent || job.attempt.N > 0 // one that could not even begin is not tried again at once
		case <-ctx.Done():
			return sent
		}
	}
	return sent
}

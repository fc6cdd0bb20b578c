package pipeline

import (
	"context"
	"errors"
	"time"

	"imagemanager.internal/internal/store"
)

const (
	// trickleEvery is how long it takes at most until an image that another process put
	// into the journal is noticed.
	trickleEvery = 2 * time.Second
	// sweepEvery is how often the journal is searched for pending images that nobody has
	// in hand.
	sweepEvery = 10 * time.Second
)

// resume sends every image whose attempt a crash cut off on its way, at once and without
// waiting for its message; then those that wait for their next attempt, when they are
// due.
func (p *Pipeline) resume(ctx, work context.Context, ids []int64, out chan<- *Job) {
	for ctx.Err() == nil {
		for _, id := range ids {
			p.awaitFit(ctx)
			p.takeUp(ctx, work, id, out)
		}
		ids = p.awaitDue(ctx)
	}
}

// unfinished returns the images at which attempts were made, and ends those attempts that
// died with the process. Images at which it died too often are parked instead.
func (p *Pipeline) unfinished(ctx context.Context) []int64 {
	due, err := p.Store.Unfinished(ctx)
	if err != nil && !errors.Is(err, context.Canceled) {
		p.Log.Error().Err(err).Msg("unfinished images cannot be read")
	}
	ids := make([]int64, 0, len(due))
	for _, img := range due {
		if img, err = p.Store.CutOff(ctx, img.ID); err != nil {
			p.logImage(img).Error().Err(err).Msg("an attempt that was cut off cannot be ended")
		}
		switch {
		case p.cfg.suspect(img):
			p.mu.Lock()
			p.parked[img.ID] = time.Now().Add(backoff(p.cfg.Backoff, img.CutOffs))
			p.mu.Unlock()
		case img.Attempt > 0:
			ids = append(ids, img.ID)
		}
	}
	return ids
}

// takeUp sends one image of the journal on its way, unless a job has it.
func (p *Pipeline) takeUp(ctx, work context.Context, id int64, out chan<- *Job) {
	img, err := p.Store.Image(ctx, id)
	if err == nil && p.cfg.suspect(img) {
		p.alone(ctx, work, img, out)
		return
	}
	if job, fresh := p.take(id, nil); fresh {
		p.dispatch(ctx, work, job, out)
	}
}

// suspect reports whether so many processes died at the image that it may have been the
// image that killed them.
func (c Config) suspect(img store.Image) bool {
	return img.State == store.StatePending && img.CutOffs >= c.MaxCutOffs
}

// alone tries an image at which processes died while no other is at work, so that none is
// lost with it; once. After that it is given up.
func (p *Pipeline) alone(ctx, work context.Context, img store.Image, out chan<- *Job) {
	if img.CutOffs > p.cfg.MaxCutOffs {
		if job, fresh := p.take(img.ID, nil); fresh {
			job.image = img
			p.giveUp(work, job)
		}
		return
	}
	p.setAlone(img.ID)
	defer p.setAlone(0)
	for p.busy() {
		if wait(ctx, 50*time.Millisecond); ctx.Err() != nil {
			return
		}
	}
	job, fresh := p.take(img.ID, nil)
	if !fresh {
		return
	}
	p.logImage(img).Warn().Int("cut_offs", img.CutOffs).Msg("processes died at this image: it is tried alone, once")
	p.dispatch(ctx, work, job, out)
	select {
	case <-job.over:
	case <-ctx.Done():
	}
}

// giveUp ends an image at which the process died once more.
func (p *Pipeline) giveUp(work context.Context, job *Job) {
	err := p.begin(work, job, job.image.Stage)
	if err != nil {
		p.notReopened(work, job, err)
		return
	}
	o := p.conclude(work, job, judgement{verdict: dead, class: "cut_off", text: errCutOff.Error()})
	if job.image.State.Refused() {
		p.discard(work, job)
	}
	p.finish(work, job, o)
}

func (p *Pipeline) setAlone(image int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.solo = image
}

// lonely is the image that is tried alone, 0 if none is.
func (p *Pipeline) lonely() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.solo
}

// busy reports whether any job is under way that will end.
func (p *Pipeline) busy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, job := range p.jobs {
		if !job.stuck {
			return true
		}
	}
	return false
}

// awaitFit waits until work may be taken, or ctx ends.
func (p *Pipeline) awaitFit(ctx context.Context) {
	for ctx.Err() == nil && !p.admit() {
		wait(ctx, time.Second)
	}
}

// awaitDue waits until parked images are due and returns them; nothing when it was only
// woken or ctx ended.
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

// sweeps searches the journal every so often for pending images that nobody has in hand:
// an image without a message is still work.
func (p *Pipeline) sweeps(ctx context.Context) {
	for wait(ctx, sweepEvery); ctx.Err() == nil; wait(ctx, sweepEvery) {
		if err := p.sweep(ctx); err != nil && ctx.Err() == nil {
			p.Log.Error().Err(err).Msg("images that nobody has in hand cannot be looked for")
		}
	}
}

// sweep parks what it finds for as long as a message may stay away: its image may be
// another host's just now.
func (p *Pipeline) sweep(ctx context.Context) error {
	pending, err := p.Store.Unfinished(ctx)
	if err != nil {
		return err
	}
	unheld := 0
	p.mu.Lock()
	for _, img := range pending {
		if _, waits := p.parked[img.ID]; waits || p.jobs[img.ID] != nil {
			continue
		}
		if img.Attempt == 0 { // trickle's, one at a time
			continue
		}
		unheld++
		p.parked[img.ID] = time.Now().Add(p.cfg.Unclaimed)
	}
	waiting := len(p.parked)
	p.mu.Unlock()
	p.metrics.waiting(waiting, unheld)
	p.nudge()
	return nil
}

// trickle sends the images that `consumer submit` or a backfill put into the journal, one
// at a time: what is notified live has the other workers for itself.
func (p *Pipeline) trickle(ctx, work context.Context, out chan<- *Job) {
	for ctx.Err() == nil {
		if !p.admit() || !p.trickleOnce(ctx, work, out) {
			wait(ctx, trickleEvery)
		}
	}
}

// trickleOnce sends what is there now and reports whether any attempt was made.
func (p *Pipeline) trickleOnce(ctx, work context.Context, out chan<- *Job) (sent bool) {
	images, err := p.Store.NeverAttempted(ctx)
	if err != nil && ctx.Err() == nil {
		p.Log.Error().Err(err).Msg("images to be taken up cannot be read")
	}
	for _, img := range images {
		if !p.admit() {
			return sent
		}
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

package pipeline

import (
	"context"
	"errors"
	"time"

	"imagemanager.internal/internal/store"
)

const (
	// backlogEvery is how long it takes at most until another process's image in the
	// journal is noticed.
	backlogEvery = 2 * time.Second
	// sweepEvery is the interval between searches of the journal for pending images
	// without a job.
	sweepEvery = 10 * time.Second
)

// resume sends every image with an attempt cut off by a crash on its way, at once and
// without its message. Then it sends the waiting images when they are due.
func (p *Pipeline) resume(ctx, work context.Context, ids []int64, out chan<- *Job) {
	for ctx.Err() == nil {
		for _, id := range ids {
			for ctx.Err() == nil && !p.health.AcceptingWork() {
				wait(ctx, time.Second)
			}
			p.takeUp(ctx, work, id, out)
		}
		ids = p.jobs.awaitDue(ctx)
	}
}

// unfinished returns the images with attempts, and ends the attempts of dead processes.
// If too many processes died at an image, it waits instead.
func (p *Pipeline) unfinished(ctx context.Context) []int64 {
	due, err := p.store.PendingImages(ctx)
	if err != nil && !errors.Is(err, context.Canceled) {
		p.log.Error().Err(err).Msg("unfinished images cannot be read")
	}
	ids := make([]int64, 0, len(due))
	for _, img := range due {
		if img, err = p.store.RecordCutOff(ctx, img.ID); err != nil {
			p.record.LogImage(img).Error().Err(err).Msg("an attempt that was cut off cannot be ended")
		}
		switch {
		case p.cfg.suspect(img):
			p.jobs.retry([]store.Image{img}, time.Now().Add(backoff(p.cfg.Backoff, img.CutOffs)))
		case img.Attempt > 0:
			ids = append(ids, img.ID)
		}
	}
	return ids
}

// takeUp sends one image of the journal on its way, unless it has a job.
func (p *Pipeline) takeUp(ctx, work context.Context, id int64, out chan<- *Job) {
	img, err := p.store.Image(ctx, id)
	if err == nil && p.cfg.suspect(img) {
		p.tryAlone(ctx, work, img, out)
		return
	}
	if job, fresh := p.jobs.take(id, nil); fresh {
		p.dispatch(ctx, work, job, out)
	}
}

// tryAlone tries an image at which processes died, once, and with no other under way:
// none is lost with it. If the process dies once more, the image is given up.
func (p *Pipeline) tryAlone(ctx, work context.Context, img store.Image, out chan<- *Job) {
	if img.CutOffs > p.cfg.MaxCutOffs {
		if job, fresh := p.jobs.take(img.ID, nil); fresh {
			job.Image = img
			p.giveUp(work, job)
		}
		return
	}
	p.health.SetAlone(img.ID)
	defer p.health.SetAlone(0)
	for p.jobs.busy() {
		if wait(ctx, 50*time.Millisecond); ctx.Err() != nil {
			return
		}
	}
	job, fresh := p.jobs.take(img.ID, nil)
	if !fresh {
		return
	}
	p.record.LogImage(img).Warn().Int("cut_offs", img.CutOffs).
		Msg("processes died at this image: it is tried alone, once")
	p.dispatch(ctx, work, job, out)
	select {
	case <-job.ended:
	case <-ctx.Done():
	}
}

// giveUp ends an image after the process died once more.
func (p *Pipeline) giveUp(work context.Context, job *Job) {
	p.traces.beginJob(work, job)
	if err := p.begin(work, job, job.Image.Stage); err != nil {
		p.finish(work, job, p.putOff(work, job, err))
		return
	}
	o := p.recordFailure(work, job, judgement{verdict: dead, class: "cut_off", text: errCutOff.Error()})
	if job.Image.State.Refused() {
		p.host.Discard(work, &job.Task)
	}
	p.finish(work, job, o)
}

// sweepLoop searches the journal for pending images without a job: an image without
// a message is still work.
func (p *Pipeline) sweepLoop(ctx context.Context) {
	for wait(ctx, sweepEvery); ctx.Err() == nil; wait(ctx, sweepEvery) {
		if err := p.sweep(ctx); err != nil && ctx.Err() == nil {
			p.log.Error().Err(err).Msg("images that nobody works on cannot be looked for")
		}
	}
}

// sweep lets what it finds wait for as long as a message may stay away: another host may
// have it just now.
func (p *Pipeline) sweep(ctx context.Context) error {
	pending, err := p.store.PendingImages(ctx)
	if err != nil {
		return err
	}
	var tried []store.Image // the others are the backlog
	for _, img := range pending {
		if img.Attempt > 0 {
			tried = append(tried, img)
		}
	}
	unheld, waiting := p.jobs.retry(tried, time.Now().Add(p.cfg.Unclaimed))
	p.metrics.waiting(waiting, unheld)
	return nil
}

// drainBacklog sends the images of `consumer submit` and of a backfill, one at a time:
// what is notified now has the other workers for itself.
func (p *Pipeline) drainBacklog(ctx, work context.Context, out chan<- *Job) {
	for ctx.Err() == nil {
		if !p.health.AcceptingWork() || !p.drainBacklogOnce(ctx, work, out) {
			wait(ctx, backlogEvery)
		}
	}
}

// drainBacklogOnce sends what the backlog holds now and reports whether any attempt was
// made. If an image could not even begin, it is not tried again at once.
func (p *Pipeline) drainBacklogOnce(ctx, work context.Context, out chan<- *Job) (sent bool) {
	images, err := p.store.NeverAttempted(ctx)
	if err != nil && ctx.Err() == nil {
		p.log.Error().Err(err).Msg("images to be taken up cannot be read")
	}
	for _, img := range images {
		if !p.health.AcceptingWork() {
			return sent
		}
		job, fresh := p.jobs.take(img.ID, nil)
		if !fresh { // its message was faster
			continue
		}
		p.dispatch(ctx, work, job, out)
		select {
		case <-job.ended:
			sent = sent || job.Attempt.N > 0
		case <-ctx.Done():
			return sent
		}
	}
	return sent
}

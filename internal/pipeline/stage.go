package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/store"
)

// step is what a stage does to an image.
type step func(context.Context, *provision.Task) error

// stage is one row of the table.
type stage struct {
	name    store.Stage
	workers int           // so many jobs are in this stage at once, at most
	limit   time.Duration // for one attempt
	do      step
	undo    step // at any time, any number of times
	check   step // nil: the recorded result is still there, so the job is handed on untouched
}

// stages is the whole program in one place.
func (p *Pipeline) stages() []stage {
	c, h := p.cfg, p.host
	return []stage{
		{store.StageDownload, c.Downloads, c.DownloadTimeout, h.Download, h.UndoDownload, h.CheckDownload},
		{store.StageUnpack, c.Unpacks, c.UnpackTimeout, h.Unpack, h.UndoUnpack, h.CheckUnpack},
		{store.StageActivate, c.Activations, c.ActivateTimeout, h.Activate, h.UndoActivate, h.CheckActivate},
	}
}

// Run takes messages from the queue, and unfinished images from the journal, through the
// stages until ctx ends. Then it takes nothing more and lets running stages finish for
// the grace period. It rolls back the rest, and returns when every goroutine has ended.
// Recover must have returned before.
func (p *Pipeline) Run(ctx context.Context) error {
	work, stop := withGrace(ctx, p.cfg.Grace)
	defer stop()
	var running sync.WaitGroup
	running.Go(func() { p.messages.keepInvisible(work) })
	running.Go(func() { announceStop(ctx, p) })
	jobs := p.source(ctx, work, &running)
	for _, st := range p.table {
		jobs = p.start(work, &running, st, jobs)
	}
	for job := range jobs {
		p.finish(work, job, done)
	}
	stop()
	running.Wait()
	p.messages.watchers.Wait()
	p.growth.emptyLog(context.WithoutCancel(ctx))
	p.jobs.summary(p.log.Info())
	return nil
}

// start connects a stage: its workers take jobs from in and hand them to the channel
// returned. The channel is unbuffered. A job keeps its worker until the next stage has
// room, so a slow stage stops everything before it, down to the receiving of messages.
func (p *Pipeline) start(work context.Context, running *sync.WaitGroup, st stage, in <-chan *Job) <-chan *Job {
	out := make(chan *Job)
	var workers sync.WaitGroup
	for range st.workers {
		workers.Go(func() {
			worker := p.metrics.stage.worker(st.name)
			defer worker.is(gone)
			for job := range in {
				worker.is(busy)
				p.jobs.moved(job, st.name, jobWorking)
				switch o := p.step(work, st, job); o {
				case goesOn:
					worker.is(blocked)
					p.jobs.moved(job, st.name, jobBlocked)
					select {
					case out <- job:
					case <-work.Done():
						p.finish(work, job, returned)
					}
				case stuck:
					p.abandonStuck(work, st, job)
				default:
					p.finish(work, job, o)
				}
				worker.is(idle)
			}
		})
	}
	running.Go(func() {
		workers.Wait()
		close(out)
	})
	return out
}

// step takes one job through one stage. A verified result is handed on. A lost result
// takes the job back to this stage.
func (p *Pipeline) step(work context.Context, st stage, job *Job) outcome {
	if job.Image.Stage != st.name {
		loss := st.check(work, &job.Task)
		if loss == nil {
			return goesOn
		}
		if isLoss(loss) {
			loss = p.record.Reopen(work, &job.Task, st.name, loss)
		}
		if loss != nil {
			return p.putOff(work, job, loss)
		}
	}
	ctx, end := p.jobs.lease(work, st, job)
	defer end()
	ctx, ended := p.traces.beginAttempt(ctx, st, job)
	defer ended()
	began := time.Now()
	err := p.begin(context.WithoutCancel(ctx), job, st.name) // so that a time limit counts as the image's failure
	if err == nil {
		job.late, err = st.perform(ctx, job)
	}
	if job.late != nil {
		job.stuckErr = err
		return stuck
	}
	took := time.Since(began)
	if err != nil {
		o, attempt := p.failed(work, st, job, withCause(ctx, err))
		p.metrics.stage.took(ctx, st.name, attempt, took)
		return o
	}
	p.metrics.stage.took(ctx, st.name, attemptDone, took)
	if p.health.Breaker.Succeeded(st.name, job.Image.ID) {
		p.log.Info().Str("step", string(st.name)).Msg("succeeds again")
		p.retrySuspects()
	}
	return goesOn
}

// failed judges the attempt, rolls it back, and records the verdict. It judges first,
// because a roll-back may give back the very space the image lacked through no fault of
// its own. The roll-back runs to its end even while stopping.
func (p *Pipeline) failed(work context.Context, st stage, job *Job, err error) (outcome, attemptOutcome) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(work), undoTimeout)
	defer cancel()
	stopped := stopReason(work, err)
	var j judgement
	if stopped == "" {
		if v, class := classify(err); st.name == store.StageDownload && (v == outage || class == classRefused) {
			_ = p.health.LookAtBucket(ctx) // the judgement asks the breaker
		}
		j = p.judge(&job.Task, err)
	}
	if undo := st.undo(ctx, &job.Task); undo != nil {
		p.record.Log(&job.Task).Error().Err(undo).Str("step", string(st.name)).
			Msg("roll-back incomplete; the next reconcile finishes it")
	}
	if stopped != "" {
		p.record.Undo(ctx, &job.Task, stopped)
		return returned, attemptUndone
	}
	if j.verdict == superseded {
		if err := p.submitter.submitNewest(ctx, job.Image); err != nil {
			j = p.judge(&job.Task, fmt.Errorf("superseded, and the newest cannot be had: %w", err))
		}
	}
	o := p.recordFailure(ctx, job, j)
	if job.Image.State.Refused() {
		p.host.Discard(ctx, &job.Task)
	}
	return o, attemptFailed
}

// stopReason says why an attempt ended without a verdict: SQS gave its message to another
// consumer, or this one stops. It is empty for a failure.
func stopReason(work context.Context, err error) string {
	switch {
	case errors.Is(err, errLeaseLost):
		return errLeaseLost.Error()
	case work.Err() != nil:
		return "stopped"
	}
	return ""
}

// putOff is for a job that cannot be taken back to a stage: an operator removed its image
// since the job looked, or the journal cannot be written. No attempt was begun, so
// nothing is rolled back: whoever removes the image is at its devices. The message comes
// back and finds the image as it is then.
func (p *Pipeline) putOff(work context.Context, job *Job, err error) outcome {
	p.record.Log(&job.Task).Warn().Err(err).Msg("lost results are not made again now")
	if work.Err() != nil {
		return returned
	}
	return outcome{verdict: retry, delay: backoff(p.cfg.Backoff, 1)}
}

// isLoss reports whether an error proves the loss of a result. That it cannot be looked
// at proves nothing.
func isLoss(err error) bool {
	for _, target := range []error{
		provision.ErrResultLost, download.ErrMissing, download.ErrCorrupt, devmapper.ErrNotFound,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// withCause adds the cause of an ended context: a time-out then names its stage.
func withCause(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return fmt.Errorf("%w: %w", context.Cause(ctx), err)
}

package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/store"
)

// stage is one row of the table: what is done to a job, how many at once, for how long at
// most, and how it is undone.
type stage struct {
	name  store.Stage
	cap   int           // goroutines: so many jobs are in this stage at once, at most
	limit time.Duration // for one attempt
	do    func(context.Context, *Job) error
	undo  func(context.Context, *Job) error // total: any time, any number of times
	holds func(context.Context, *Job) error // nil: the recorded result still verifies, the job is handed on untouched
}

// stages is the whole program in one place.
func (p *Pipeline) stages() []stage {
	c := p.cfg
	return []stage{
		{store.StageDownload, c.Downloads, c.DownloadTimeout, p.download, p.undoDownload, p.blobHolds}, // network
		{store.StageUnpack, c.Unpacks, c.UnpackTimeout, p.unpack, p.undoUnpack, p.deviceHolds},         // disk
		// pool metadata
		{store.StageActivate, c.Activations, c.ActivateTimeout, p.activate, p.undoActivate, p.snapshotHolds},
	}
}

// Job is one image on its way through the stages. Whoever received it from a channel owns
// it.
type Job struct {
	image   store.Image   // as of the last event
	attempt store.Attempt // the fencing token of the current attempt

	over chan struct{} // closed when the job has ended

	deliveries []*delivery             // messages that wait for this image; guarded by Pipeline.mu
	began      int                     // how many of them there were when the attempt began; guarded by Pipeline.mu
	stuck      bool                    // its stage does not come back; guarded by Pipeline.mu
	cancel     context.CancelCauseFunc // of the attempt that runs; guarded by Pipeline.mu
}

// Run takes messages from the queue and unfinished images from the journal through the
// stages until ctx ends. Then it takes nothing more, lets running stages finish for the
// grace period, rolls back the rest and returns when every goroutine is gone. Recover
// must have returned before.
func (p *Pipeline) Run(ctx context.Context) error {
	work, stop := p.graceful(ctx)
	defer stop()
	var running sync.WaitGroup
	running.Go(func() { p.heartbeat(work) })
	jobs := p.source(ctx, work, &running)
	for _, st := range p.table {
		jobs = p.start(work, &running, st, jobs)
	}
	for job := range jobs {
		p.finish(work, job, done)
	}
	stop()
	running.Wait()
	p.watchers.Wait()
	p.emptyLog(context.WithoutCancel(ctx))
	p.condition.summary(p.Log.Info())
	return nil
}

// start connects a stage: cap workers take jobs from in and hand them to the channel
// returned. The channel is unbuffered: a job that the next stage has no room for keeps
// its worker, so a slow stage stops everything before it, down to the receiving of
// messages.
func (p *Pipeline) start(work context.Context, running *sync.WaitGroup, st stage, in <-chan *Job) <-chan *Job {
	out := make(chan *Job)
	var workers sync.WaitGroup
	for range st.cap {
		workers.Go(func() {
			for job := range in {
				if !p.step(work, st, job) {
					continue
				}
				select {
				case out <- job:
				case <-work.Done():
					p.finish(work, job, abandoned)
				}
			}
		})
	}
	running.Go(func() {
		workers.Wait()
		close(out)
	})
	return out
}

// step takes one job through one stage and reports whether it goes on. A result that is
// there already and still verifies is handed on; one that was lost takes the job back to
// this stage.
func (p *Pipeline) step(work context.Context, st stage, job *Job) bool {
	if job.image.Stage != st.name {
		if lost := st.holds(work, job); lost == nil {
			return true
		} else if !isLoss(lost) {
			p.notReopened(work, job, lost)
			return false
		} else if err := p.reopen(work, job, st.name, lost); err != nil {
			p.notReopened(work, job, err)
			return false
		}
	}
	ctx, end := p.lease(work, st, job)
	defer end()
	p.metrics.busy(st.name, 1)
	defer p.metrics.busy(st.name, -1)
	began := time.Now()
	err := p.begin(ctx, job, st.name)
	var late <-chan error
	if err == nil {
		late, err = st.perform(ctx, job)
	}
	if late != nil {
		p.stuck(work, st, job, late, err)
		return false
	}
	if err != nil {
		p.failed(work, st, job, because(ctx, err))
		return false
	}
	p.metrics.took(st.name, time.Since(began))
	if p.breaker.succeeded(st.name, job.image.ID) {
		p.Log.Info().Str("step", string(st.name)).Msg("succeeds again")
		p.hasten()
	}
	return true
}

// failed judges the attempt, rolls it back, records the verdict and ends the job. It
// judges first: a roll-back may give back the very space whose lack was no fault of the
// image. The roll-back runs to its end even while stopping.
func (p *Pipeline) failed(work context.Context, st stage, job *Job, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(work), undoTimeout)
	defer cancel()
	lost := errors.Is(err, errLeaseLost)
	stopped := lost || work.Err() != nil
	var j judgement
	if !stopped {
		if v, class := classify(err); st.name == store.StageDownload && (v == outage || class == classRefused) {
			_ = p.lookAtBucket(ctx) // the judgement asks the breaker
		}
		j = p.judge(job, err)
	}
	if undo := st.undo(ctx, job); undo != nil {
		p.logJob(job).Error().Err(undo).Str("step", string(st.name)).
			Msg("roll-back incomplete; the next reconcile finishes it")
	}
	if stopped {
		p.undone(ctx, job, map[bool]string{true: errLeaseLost.Error(), false: "stopped"}[lost])
		p.finish(work, job, abandoned)
		return
	}
	if j.verdict == superseded {
		if err := p.submitNewest(ctx, job); err != nil {
			j = p.judge(job, fmt.Errorf("superseded, and the newest cannot be had: %w", err))
		}
	}
	o := p.conclude(ctx, job, j)
	if job.image.State.Refused() {
		p.discard(ctx, job)
	}
	p.finish(work, job, o)
}

// isLoss reports whether an error proves that a result is gone. That it cannot be looked
// at proves nothing.
func isLoss(err error) bool {
	for _, is := range []error{errLost, download.ErrMissing, download.ErrCorrupt, devmapper.ErrNotFound} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}

// because replaces a context's bare error with its cause, so that a time-out tells whose
// it was.
func because(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return fmt.Errorf("%w: %w", context.Cause(ctx), err)
}

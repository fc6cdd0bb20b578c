package pipeline

import (
	"context"
	"errors"
	"time"

	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/reconcile"
)

// reconcileLoop compares journal, pool and files while other work goes on.
func (p *Pipeline) reconcileLoop(ctx context.Context) {
	for p.cfg.ReconcileEvery > 0 {
		wait(ctx, p.cfg.ReconcileEvery)
		if ctx.Err() != nil {
			return
		}
		if err := p.reconcileOnce(ctx); err != nil && ctx.Err() == nil {
			p.log.Error().Err(err).Dur("again_in_ms", p.cfg.ReconcileEvery).Msg("reconcile incomplete")
		}
	}
}

// reconcileOnce reconciles, unless a command works on the pool just now: then the next
// time will do.
func (p *Pipeline) reconcileOnce(ctx context.Context) (err error) {
	began := time.Now()
	release, err := p.exclusive()
	if err != nil {
		p.log.Debug().Err(err).Msg("reconcile put off")
		return nil
	}
	defer func() { err = errors.Join(err, release()) }()
	left, err := p.reconciler.Reconcile(ctx)
	err = errors.Join(err, p.raiseGeneration(ctx))
	p.reconciled.ended(began, err)
	if err != nil {
		return err
	}
	p.log.Debug().Dur("took_ms", time.Since(began)).Int("in_hand", left).Msg("journal, pool and files agree")
	return nil
}

// raiseGeneration gives the pool a new generation. A copy of its data or metadata from
// before is not a part of the pool any more.
func (p *Pipeline) raiseGeneration(ctx context.Context) error {
	generation, err := p.pool.RaiseGeneration()
	p.health.PoolProved(err)
	if err != nil {
		return err
	}
	return p.store.SetPoolGeneration(ctx, generation)
}

// jobsOfPipeline is a pipeline as a reconcile sees it: reconcile.Jobs.
type jobsOfPipeline struct{ p *Pipeline }

// Working returns the images with a job.
func (j jobsOfPipeline) Working() map[int64]bool { return j.p.jobs.working() }

// Due returns when a waiting image is taken up; zero if it does not wait.
func (j jobsOfPipeline) Due(image int64) time.Time { return j.p.jobs.due(image) }

// Take makes a job for the image without sending it to a stage. New messages join it.
func (j jobsOfPipeline) Take(image int64) (t *provision.Task, free bool) {
	job, fresh := j.p.jobs.take(image, nil)
	if !fresh {
		return nil, false
	}
	return &job.Task, true
}

// Finish ends the job.
func (j jobsOfPipeline) Finish(ctx context.Context, t *provision.Task, o reconcile.Outcome) {
	job := j.p.jobs.holding(t)
	switch {
	case o.Whole:
		j.p.finish(ctx, job, done)
	case o.Due.IsZero():
		j.p.finish(ctx, job, outcome{verdict: retry, noAutoRetry: true})
	default:
		j.p.finish(ctx, job, outcome{verdict: retry, delay: max(time.Until(o.Due), 0)})
	}
}

package pipeline

import (
	"context"
	"errors"
	"time"
)

// reconciles compares journal, pool and files every so often while other work goes on.
func (p *Pipeline) reconciles(ctx context.Context) {
	for p.cfg.ReconcileEvery > 0 {
		wait(ctx, p.cfg.ReconcileEvery)
		if ctx.Err() != nil {
			return
		}
		if err := p.reconcileOnce(ctx); err != nil && ctx.Err() == nil {
			p.Log.Error().Err(err).Dur("again_in_ms", p.cfg.ReconcileEvery).Msg("reconcile incomplete")
		}
	}
}

// reconcileOnce does it unless a command works on the pool just now; then the next time will do.
func (p *Pipeline) reconcileOnce(ctx context.Context) (err error) {
	began := time.Now()
	release, err := p.Exclusive()
	if err != nil {
		p.Log.Debug().Err(err).Msg("reconcile put off")
		return nil
	}
	defer func() { err = errors.Join(err, release()) }()
	if err := p.Reconcile(ctx); err != nil {
		return err
	}
	p.Log.Debug().Dur("took_ms", time.Since(began)).Msg("journal, pool and files agree")
	return nil
}

// leftovers are the kinds of things that can be left over.
var leftovers = []string{"thin_device", "dm_device", "mount", "loop_device", "file"}

// countLeftovers counts what no row of the journal claims, after everything that the plan says was done about it.
func (p *Pipeline) countLeftovers(ctx context.Context, plan []Action) (err error) {
	if len(plan) > 0 {
		if plan, err = p.Plan(ctx, false); err != nil {
			return err
		}
	}
	count := map[string]int{}
	for _, a := range plan {
		if a.kind != "" && !p.working(a.Image) {
			count[a.kind]++
		}
	}
	stray, err := p.Pool.Stray()
	if err != nil {
		return err
	}
	count["mount"], count["loop_device"] = len(stray.Mounts), len(stray.Loops)
	count["dm_device"] += len(stray.Devices)
	for _, what := range stray.All() {
		p.Log.Warn().Str("what", what).Msg("left over, and not ours to remove")
	}
	for _, kind := range leftovers {
		p.metrics.leftover(kind, count[kind])
	}
	return nil
}

// dueOf is when an image that failed without a message is taken up again; zero if it is not waiting for that.
func (p *Pipeline) dueOf(image int64) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.parked[image]
}

// working tells whether a job works on the image.
func (p *Pipeline) working(image int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.jobs[image] != nil
}

package pipeline

import (
	"context"
	"errors"
	"slices"
	"time"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
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

// reconcileOnce does it unless a command works on the pool just now; then the next time
// will do.
func (p *Pipeline) reconcileOnce(ctx context.Context) (err error) {
	began := time.Now()
	release, err := p.Exclusive()
	if err != nil {
		p.Log.Debug().Err(err).Msg("reconcile put off")
		return nil
	}
	defer func() { err = errors.Join(err, release()) }()
	left, err := p.Reconcile(ctx)
	if err := errors.Join(err, p.renew(ctx)); err != nil {
		return err
	}
	p.Log.Debug().Dur("took_ms", time.Since(began)).Int("in_hand", left).Msg("journal, pool and files agree")
	return nil
}

// Reconcile is Recover beside running jobs: it leaves alone whatever a job works on, and
// whatever changed since it looked. The caller keeps other commands out of the pool. It
// returns how many images it did not look at, because they were worked on.
func (p *Pipeline) Reconcile(ctx context.Context) (inHand int, err error) {
	plan, err := p.Plan(ctx, false)
	if err != nil {
		return 0, err
	}
	var problems []Problem
	for _, a := range plan.Actions {
		if err := p.applyIdle(ctx, a); err != nil {
			problems = append(problems, problemOf(a, err))
		}
	}
	p.metrics.problems.Set(float64(len(problems)))
	errs := []error{p.countLeftovers(ctx, plan, false)}
	for _, pr := range problems {
		errs = append(errs, pr.err)
	}
	return plan.InHand, errors.Join(errs...)
}

// applyIdle applies an action to an image that no job works on, and that is still as it
// was when the plan was made.
func (p *Pipeline) applyIdle(ctx context.Context, a Action) error {
	if a.image.ID == 0 {
		if a.Do != Report {
			p.Log.Warn().Str("action", string(a.Do)).Str("what", a.What).Msg("reconcile")
		}
		return p.apply(ctx, nil, a)
	}
	due := p.dueOf(a.image.ID)
	job, fresh := p.take(a.image.ID, nil)
	if !fresh {
		return nil
	}
	img, err := p.Store.Image(ctx, a.image.ID)
	still := false
	if err == nil && img.UpdatedAt.Equal(a.image.UpdatedAt) {
		still, err = p.still(ctx, a)
	}
	if still {
		job.image = img
		p.logJob(job).Warn().Str("action", string(a.Do)).Str("what", a.What).Msg("reconcile")
		err = p.apply(ctx, job, a)
	}
	p.finish(ctx, job, afterwards(a, img, job.image, due, err))
	return err
}

// afterwards is the outcome for the messages that came while an action had the image.
// What was lost is to be made again now. An image that waited goes on waiting: for its
// time, or for its message, which another host may have by now.
func afterwards(a Action, before, after store.Image, due time.Time, err error) outcome {
	switch {
	case err == nil && before.State == store.StateActive && after.State == store.StateActive:
		return done
	case a.Do == MakeAgain || a.Do == RollForward:
		return abandoned
	case due.IsZero():
		return outcome{verdict: retry, left: true}
	}
	return outcome{verdict: retry, delay: max(time.Until(due), 0)}
}

// still reports whether the device of an action is as it was: in the journal, and if it
// was missed, in the pool. Nobody else has the image in hand now.
func (p *Pipeline) still(ctx context.Context, a Action) (bool, error) {
	devices, err := p.Store.DevicesOf(ctx, a.image.ID)
	if err != nil {
		return false, err
	}
	for _, d := range devices {
		if d.ID == a.device.ID && (d.State != a.device.State || !d.UpdatedAt.Equal(a.device.UpdatedAt)) {
			return false, nil
		}
	}
	if a.device.ID == 0 {
		return a.Do != MakeAgain ||
			!slices.ContainsFunc(devices, func(d store.Device) bool { return d.State == store.DeviceReady }), nil
	}
	if !slices.ContainsFunc(devices, func(d store.Device) bool { return d.ID == a.device.ID }) {
		return false, nil
	}
	if a.Do != MakeAgain {
		return true, nil
	}
	thins, err := p.Pool.Thins()
	return err == nil && !slices.ContainsFunc(thins,
		func(th devmapper.Thin) bool { return int64(th.ID) == a.device.ID }), err
}

// renew makes what was copied of the pool's data or metadata before no part of the pool.
func (p *Pipeline) renew(ctx context.Context) error {
	generation, err := p.Pool.Renew()
	p.condition.proved(err)
	if err != nil {
		return err
	}
	return p.Store.PoolGeneration(ctx, generation)
}

// leftovers are the kinds of things that can be left over.
var leftovers = []string{"thin_device", "dm_device", "mount", "loop_device", "file"}

// countLeftovers counts what no row of the journal claims, after everything that the plan
// says was done about it.
func (p *Pipeline) countLeftovers(ctx context.Context, plan Plan, alone bool) (err error) {
	if len(plan.Actions) > 0 {
		if plan, err = p.Plan(ctx, alone); err != nil {
			return err
		}
	}
	count := map[string]int{}
	for _, a := range plan.Actions {
		if a.kind != "" {
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

// dueOf is when an image that failed without a message is taken up again; zero if it is
// not waiting for that.
func (p *Pipeline) dueOf(image int64) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.parked[image]
}

// working returns the images that a job works on.
func (p *Pipeline) working() map[int64]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	ids := make(map[int64]bool, len(p.jobs))
	for id := range p.jobs {
		ids[id] = true
	}
	return ids
}

package pipeline

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"imagemanager.internal/internal/archive"
)

// patience is how long a stage may take to come back after its context has ended.
const patience = 10 * time.Second

// errStuck says that a stage did not come back although its time was over.
var errStuck = errors.New("does not come back")

// protect calls do. A panic becomes an error that has the stack, as one in a goroutine of
// the archive's does.
func protect(do func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &archive.Panic{Value: r, Stack: debug.Stack()}
		}
	}()
	return do()
}

// perform does the stage's work on a job. What neither returns nor heeds its context (a
// system call on a device that does not answer, or a fault of ours) is left alone: the
// error is errStuck then, and late is closed with the work's own.
func (st stage) perform(ctx context.Context, job *Job) (late <-chan error, err error) {
	result := make(chan error, 1) // buffered: the work ends even when nobody waits for it any more
	go func() { result <- protect(func() error { return st.do(ctx, job) }) }()
	select {
	case err := <-result:
		return nil, err
	case <-ctx.Done():
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case err := <-result:
		return nil, err
	case <-timer.C:
		return result, fmt.Errorf("%s: %w %s after its end: %w", st.name, errStuck, patience, context.Cause(ctx))
	}
}

// stuck ends the attempt of a job whose stage does not come back. Its messages go back
// and its worker is free. The image stays in hand, so that nobody touches its devices
// under the work that may still go on; should it ever come back, the attempt is rolled
// back then. Run does not wait for that: what is left is the next start's.
func (p *Pipeline) stuck(work context.Context, st stage, job *Job, late <-chan error, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(work), undoTimeout)
	defer cancel()
	left := p.replace(ctx, job)
	o := abandoned
	if lost := errors.Is(err, errLeaseLost); lost || work.Err() != nil { // no verdict, as for one that comes back
		p.undone(ctx, left, map[bool]string{true: errLeaseLost.Error(), false: "stopped"}[lost])
	} else {
		o = p.conclude(ctx, left, p.judge(left, err))
	}
	p.mu.Lock()
	waiting := left.deliveries
	left.deliveries, left.stuck = nil, true
	p.mu.Unlock()
	for _, d := range waiting {
		p.settle(work, d, o)
	}
	close(job.over) // nobody waits for what does not come back
	go func() {
		err := <-late
		p.logJob(left).Warn().AnErr("result", err).Str("step", string(st.name)).Msg("the stage came back after all")
		ctx, cancel := context.WithTimeout(context.WithoutCancel(work), undoTimeout)
		defer cancel()
		if err := st.undo(ctx, left); err != nil {
			p.logJob(left).Error().Err(err).Msg("roll-back incomplete; the next reconcile finishes it")
		}
		p.finish(work, left, o)
	}()
}

// replace puts another job in the place of one that its stage still has: that may write
// to its own at any time.
func (p *Pipeline) replace(ctx context.Context, job *Job) *Job {
	img, err := p.Store.Image(ctx, job.attempt.Image)
	if err != nil {
		p.Log.Error().Err(err).Int64("image_id", job.attempt.Image).Msg("journal cannot be read")
		img.ID = job.attempt.Image
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	left := &Job{
		image: img, attempt: job.attempt, over: make(chan struct{}), deliveries: job.deliveries,
		began: job.began,
	}
	p.jobs[img.ID] = left
	return left
}

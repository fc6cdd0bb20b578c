package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"imagemanager.internal/internal/archive"
)

// returnTimeout is how long a stage may take to return after its context has ended.
const returnTimeout = 10 * time.Second

// errStuck is returned for a stage that did not return although its time was over.
var errStuck = errors.New("does not come back")

// perform does the stage's work on a job. If the work neither returns nor heeds its
// context (a system call on a silent device, or a fault of ours), it is left alone. Then
// the error is errStuck, and late delivers the work's own should it ever return.
func (st stage) perform(ctx context.Context, job *Job) (late <-chan error, err error) {
	result := make(chan error, 1) // buffered: the work ends even if nobody waits for it any more
	go func() { result <- archive.CatchPanic(func() error { return st.do(ctx, &job.Task) }) }()
	select {
	case err := <-result:
		return nil, err
	case <-ctx.Done():
	}
	timer := time.NewTimer(returnTimeout)
	defer timer.Stop()
	select {
	case err := <-result:
		return nil, err
	case <-timer.C:
		return result, fmt.Errorf("%s: %w %s after its end: %w", st.name, errStuck, returnTimeout, context.Cause(ctx))
	}
}

// abandonStuck ends the attempt of a job after its stage did not come back. Its messages
// are returned and its worker is free. The image stays taken: its devices must not be
// touched while the work may still go on. If the stage ever comes back, the attempt is
// rolled back then. Run does not wait for it: the next start sees to the rest.
func (p *Pipeline) abandonStuck(work context.Context, st stage, job *Job) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(work), undoTimeout)
	defer cancel()
	img, readErr := p.store.Image(ctx, job.Attempt.Image)
	if readErr != nil {
		p.log.Error().Err(readErr).Int64("image_id", job.Attempt.Image).Msg("journal cannot be read")
		img.ID = job.Attempt.Image
	}
	left := p.jobs.replace(job, img)
	o := returned
	err, late := job.stuckErr, job.late
	if stopped := stopReason(work, err); stopped != "" { // no verdict, as for any stopped stage
		p.record.Undo(ctx, &left.Task, stopped)
	} else {
		o = p.recordFailure(ctx, left, p.judge(&left.Task, err))
	}
	for _, d := range p.jobs.markStuck(left) {
		p.messages.acknowledge(work, d, o)
	}
	left.trace.end(o.verdict)
	close(job.ended) // nobody waits for what does not come back
	go func() {
		err := <-late
		p.record.Log(&left.Task).Warn().AnErr("result", err).Str("step", string(st.name)).
			Msg("the stage came back after all")
		ctx, cancel := context.WithTimeout(context.WithoutCancel(work), undoTimeout)
		defer cancel()
		if err := st.undo(ctx, &left.Task); err != nil {
			p.record.Log(&left.Task).Error().Err(err).Msg("roll-back incomplete; the next reconcile finishes it")
		}
		p.finish(work, left, o)
	}()
}

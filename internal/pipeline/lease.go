package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"imagemanager.internal/internal/queue"
)

// errLeaseLost is the cause of a job's context when SQS gives its message to somebody
// else.
var errLeaseLost = errors.New("the message is no longer ours")

// deliver starts to watch a message. The delivery is held open until intake has counted
// every record.
func (p *Pipeline) deliver(m *queue.Message) *delivery {
	d := &delivery{msg: m, open: 1, over: make(chan struct{})}
	p.watchers.Go(func() {
		select {
		case <-m.Lost():
			p.lost(d)
		case <-d.over:
		}
	})
	return d
}

// lost ends the jobs that wait for this message alone: another host may be at the same
// image now. Their attempts are rolled back and can no longer commit; the image waits for
// its message.
func (p *Pipeline) lost(d *delivery) {
	p.metrics.message("lost")
	p.Log.Warn().Str("message_id", d.msg.ID).
		Msg("message lost: its visibility time-out passed, or its receipt handle is no longer valid")
	p.mu.Lock()
	defer p.mu.Unlock()
	d.lost = true
	for _, job := range p.jobs {
		if job.cancel != nil && job.orphaned() {
			job.cancel(errLeaseLost)
		}
	}
}

// orphaned tells whether every message that waited for the job is lost. A job of the
// journal's waits for none and is never orphaned. Pipeline.mu is held.
func (j *Job) orphaned() bool {
	return len(j.deliveries) > 0 && !slices.ContainsFunc(j.deliveries, func(d *delivery) bool { return !d.lost })
}

// lease returns the context of one attempt: it ends after the stage's limit, and when the
// job is orphaned.
func (p *Pipeline) lease(work context.Context, st stage, job *Job) (context.Context, func()) {
	ctx, end := context.WithTimeoutCause(work, st.limit, fmt.Errorf("%s: %w after %s", st.name, errTimeout, st.limit))
	ctx, lose := context.WithCancelCause(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	job.cancel = lose
	if job.orphaned() {
		lose(errLeaseLost)
	}
	return ctx, func() {
		p.mu.Lock()
		job.cancel = nil
		p.mu.Unlock()
		lose(nil)
		end()
	}
}

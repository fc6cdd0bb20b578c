package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"imagemanager.internal/internal/failpoint"
	"imagemanager.internal/internal/queue"
	"imagemanager.internal/internal/store"
)

// outcome is how a job ended, for the messages that wait for it.
type outcome struct {
	verdict  verdict
	delay    time.Duration // retry: before the message is visible again
	left     bool          // retry: without a message the image is not taken up again
	reason   string        // dead: for whoever finds the message in the dead-letter queue
	attempts int           // dead
}

var (
	done      = outcome{verdict: accepted}
	abandoned = outcome{verdict: retry} // visible to the other hosts at once
)

// rank orders outcomes by what they ask for the message: delete it, bury it, keep it. The
// highest of its records decides.
func (o outcome) rank() int {
	switch o.verdict {
	case retry:
		return 2
	case dead:
		return 1
	}
	return 0
}

// delivery is one message and the jobs it waits for, one a record. It is settled once,
// when the last has ended.
type delivery struct {
	msg  *queue.Message
	over chan struct{} // closed when settled
	lost bool          // guarded by Pipeline.mu

	mu    sync.Mutex
	open  int     // jobs that have not ended, plus one while intake still adds
	worst outcome // of the highest rank so far
}

// add counts one more job.
func (d *delivery) add() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open++
}

// end notes one outcome and tells whether it was the last.
func (d *delivery) end(o outcome) (last bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open--
	if o.rank() > d.worst.rank() {
		d.worst = o
	}
	return d.open == 0
}

// settle notes the outcome; the last one settles the message. The caller does not wait
// for that: the queue makes one call of the many that come at about the same time, and
// the message's permit is held until its own has been answered.
func (p *Pipeline) settle(ctx context.Context, d *delivery, o outcome) {
	if !d.end(o) {
		return
	}
	p.watchers.Go(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout) // also while stopping
		defer cancel()
		p.dispose(ctx, d)
		close(d.over)
		<-p.permits
	})
}

// dispose deletes a message, buries it, or gives it back. A message is deleted only when
// every image it names is terminal, on disk. However it ends, its lease is not extended
// any more: the permit goes back, and nothing else counts what is held.
func (p *Pipeline) dispose(ctx context.Context, d *delivery) {
	var err error
	result := "deleted"
	switch d.worst.verdict {
	case retry:
		result, err = "returned", p.Queue.Release(ctx, d.msg, d.worst.delay)
	case dead:
		result, err = p.bury(ctx, d)
	default:
		failpoint.Here("before", "delete", "message")
		err = p.Queue.Delete(ctx, d.msg)
		failpoint.Here("after", "delete", "message")
	}
	if err != nil {
		result = "unsettled"
		p.Log.Warn().Err(err).Str("message_id", d.msg.ID).
			Msg("message not settled; it comes back when its visibility time-out ends, and is handed off")
	}
	p.metrics.message(result)
}

// bury takes a message of which nothing will come to the dead-letter queue, or where
// there is none or it takes no copy into quarantine, and only then deletes it. One that
// can be kept nowhere is given back, for a while: its images are dead still when it comes
// again. The result is for the metric; after an error the message is not deleted, and not
// extended either.
func (p *Pipeline) bury(ctx context.Context, d *delivery) (result string, err error) {
	log := p.Log.With().Str("message_id", d.msg.ID).Str("reason", d.worst.reason).Int("attempts", d.worst.attempts).
		Logger()
	err = p.Queue.DeadLetter(ctx, d.msg, d.worst.reason, d.worst.attempts)
	switch {
	case err == nil:
		log.Error().Msg("message moved to the dead-letter queue")
		return "buried", nil
	case errors.Is(err, queue.ErrNotCopied):
		log.Warn().Err(err).Str("class", string(queue.Classify(err))).
			Msg("message cannot be moved to SQS_DEAD_LETTER_URL: it is kept in quarantine instead")
	case !errors.Is(err, queue.ErrNoDeadLetter):
		return "", err
	}
	err = p.Store.Quarantine(ctx, store.Quarantined{
		MessageID: d.msg.ID, Body: d.msg.Body, Reason: d.worst.reason, Attempts: d.worst.attempts, SentAt: d.msg.SentAt,
	})
	if err != nil {
		if store.Unwritable(err) {
			p.condition.unwritable(err)
		}
		delay := backoff(p.cfg.Backoff, d.msg.ReceiveCount)
		log.Error().Err(err).Dur("again_in_ms", delay).
			Msg("message can be kept nowhere: it is given back to the queue, and buried when it comes again")
		return "returned", p.Queue.Release(ctx, d.msg, delay)
	}
	log.Error().Msg("message moved to quarantine: `consumer quarantine list`")
	return "buried", p.Queue.Delete(ctx, d.msg)
}

// ProbeDeadLetter refuses a dead-letter queue that is certainly none: an error in the
// configuration, to be found before a message depends on it. That it could not be looked
// at is only said.
func (p *Pipeline) ProbeDeadLetter(ctx context.Context) error {
	err := p.Queue.ProbeDeadLetter(ctx)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, queue.ErrUnfit):
		return fmt.Errorf("SQS_DEAD_LETTER_URL: %w: make the queue, or name another; without the setting such messages are kept in quarantine", err)
	}
	p.Log.Warn().Err(err).Str("class", string(queue.Classify(err))).
		Msg("the dead-letter queue cannot be looked at, for which sqs:GetQueueAttributes is needed; what it does not take is kept in quarantine")
	return nil
}

// messagesOf returns the ids of the messages that wait for a job.
func (p *Pipeline) messagesOf(job *Job) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var ids []string
	for _, d := range job.deliveries {
		if !slices.Contains(ids, d.msg.ID) {
			ids = append(ids, d.msg.ID)
		}
	}
	return ids
}

// askedAnew reports whether a message waits for the job under which the image was never
// tried. Another comes again because a sibling of this record is to be tried again, or
// because it could not be settled: two such records would bring each other back for ever.
func (p *Pipeline) askedAnew(ctx context.Context, job *Job) (bool, error) {
	for _, id := range p.messagesOf(job) {
		tried, err := p.Store.Tried(ctx, job.image.ID, id)
		if err != nil || !tried {
			return !tried, err
		}
	}
	return false, nil
}

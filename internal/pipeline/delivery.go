package pipeline

import (
	"context"
	"errors"
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

// rank orders outcomes by what they ask for the message: delete it, bury it, keep it. The highest of its records decides.
func (o outcome) rank() int {
	switch o.verdict {
	case retry:
		return 2
	case dead:
		return 1
	}
	return 0
}

// delivery is one message and the jobs it waits for, one a record. It is settled once, when the last has ended.
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

// settle notes the outcome; the last one settles the message. The caller does not wait for that: the queue makes one call of the
// many that come at about the same time, and the message's permit is held until its own has been answered.
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

// dispose deletes a message, buries it, or gives it back. A message is deleted only when every image it names is terminal, on disk.
func (p *Pipeline) dispose(ctx context.Context, d *delivery) {
	var err error
	result := "deleted"
	switch d.worst.verdict {
	case retry:
		result, err = "returned", p.Queue.Release(ctx, d.msg, d.worst.delay)
	case dead:
		result, err = "buried", p.bury(ctx, d)
	default:
		failpoint.Here("before", "delete", "message")
		err = p.Queue.Delete(ctx, d.msg)
		failpoint.Here("after", "delete", "message")
	}
	if err != nil {
		result = "unsettled"
		p.Log.Warn().Err(err).Str("message_id", d.msg.ID).Msg("message not settled; it comes back when its visibility time-out ends, and is handed off")
	}
	p.metrics.message(result)
}

// bury takes a message of which nothing will come to the dead-letter queue, or where there is none into quarantine, and only then
// deletes it.
func (p *Pipeline) bury(ctx context.Context, d *delivery) error {
	log := p.Log.Error().Str("message_id", d.msg.ID).Str("reason", d.worst.reason).Int("attempts", d.worst.attempts)
	err := p.Queue.DeadLetter(ctx, d.msg, d.worst.reason, d.worst.attempts)
	if err == nil {
		log.Msg("message moved to the dead-letter queue")
	}
	if !errors.Is(err, queue.ErrNoDeadLetter) {
		return err
	}
	err = p.Store.Quarantine(ctx, store.Quarantined{
		MessageID: d.msg.ID, Body: d.msg.Body, Reason: d.worst.reason, Attempts: d.worst.attempts, SentAt: d.msg.SentAt,
	})
	if err != nil {
		return err
	}
	log.Msg("message moved to quarantine: `consumer quarantine list`")
	return p.Queue.Delete(ctx, d.msg)
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

// askedAnew reports whether a message waits for the job under which the image was never tried. Another comes again because a sibling of
// this record is to be tried again, or because it could not be settled: two such records would bring each other back for ever.
func (p *Pipeline) askedAnew(ctx context.Context, job *Job) (bool, error) {
	for _, id := range p.messagesOf(job) {
		tried, err := p.Store.Tried(ctx, job.image.ID, id)
		if err != nil || !tried {
			return !tried, err
		}
	}
	return false, nil
}

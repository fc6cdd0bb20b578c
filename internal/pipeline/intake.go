package pipeline

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"imagemanager.internal/internal/queue"
	"imagemanager.internal/internal/store"
)

// source feeds the first stage: from the queue, and from the journal. It also
// starts the work beside the stages.
func (p *Pipeline) source(ctx, work context.Context, running *sync.WaitGroup) <-chan *Job {
	unfinished := p.unfinished(work) // before anybody begins an attempt
	out := make(chan *Job)
	var senders sync.WaitGroup
	senders.Go(func() { p.intake(ctx, work, out) })
	senders.Go(func() { p.resume(ctx, work, unfinished, out) })
	senders.Go(func() { p.drainBacklog(ctx, work, out) })
	senders.Go(func() { p.sweepLoop(ctx) })
	senders.Go(func() { p.backfillLoop(ctx) })
	senders.Go(func() {
		p.activations.run(ctx)
		p.reconcileLoop(ctx)
	})
	senders.Go(func() { p.health.Watch(ctx) })
	senders.Go(func() { p.health.Beat(ctx, func() { p.jobs.idle() }) })
	senders.Go(func() { p.growth.watch(ctx) })
	senders.Go(func() { p.depths.watch(ctx) })
	running.Go(func() {
		senders.Wait()
		close(out)
	})
	return out
}

// intake receives as many messages as there are permits for. Without a free permit it
// does not call. What it has received it hands on before it receives again, so a full
// pipeline leaves messages visible to the other hosts on the queue.
func (p *Pipeline) intake(ctx, work context.Context, out chan<- *Job) {
	failures := 0
	p.health.ProveOurs(ctx)
	for {
		most := 10
		if p.health.AwaitTrial(ctx, func() int { return len(p.messages.permits) }) {
			most = 1
		}
		n := p.messages.acquire(ctx, most)
		if n == 0 {
			return
		}
		msgs, err := p.messages.receive(ctx, n)
		p.messages.releasePermits(n - len(msgs))
		if err != nil && ctx.Err() == nil {
			failures++
			p.health.Polled(err)
			wait(ctx, min(backoff(100*time.Millisecond, failures), 20*time.Second))
			continue
		}
		failures = 0
		p.health.Polled(nil)
		for _, m := range msgs {
			// The poll may have been drained while stopping, or the pool filled up
			// meanwhile.
			if ctx.Err() != nil || !p.health.AcceptingWork() {
				p.messages.acknowledge(work, p.messages.watch(m), returned)
				continue
			}
			p.accept(ctx, work, m, out)
		}
	}
}

// accept turns a message into jobs, one a record, and hands the new ones to the first
// stage.
func (p *Pipeline) accept(ctx, work context.Context, m *queue.Message, out chan<- *Job) {
	d := p.messages.watch(m)
	if m.Malformed != nil {
		o := p.messages.malformed(m, m.Malformed, "message is not an S3 notification")
		p.messages.acknowledge(work, d, o)
		return
	}
	for _, ig := range m.Notification.Ignored {
		p.messages.ignore(m, ig.Reason).Str("detail", ig.Detail).Msg("notification ignored")
	}
	end := done
	for _, err := range m.Notification.Broken {
		end = p.messages.malformed(m, err, "a record of the message is not an S3 notification")
	}
	for _, o := range m.Notification.Objects {
		reason := p.cfg.foreign(o)
		if reason == "" {
			p.health.NoteOurs()
			d.add()
			p.acceptObject(ctx, work, d, o, out)
			continue
		}
		p.messages.ignore(m, reason).Str("bucket", o.Bucket).Str("s3_key", o.Key).
			Msg("notification is not about an image of ours")
		if reason == reasonDirectory {
			continue
		}
		p.health.ProveOurs(work) // an image may have come from the bucket's listing meanwhile
		if all, delay := p.health.NoteForeign(o); all {
			end = outcome{verdict: retry, delay: delay}
			continue
		}
		if p.cfg.KeepForeign {
			end = outcome{verdict: dead, reason: reason, attempts: m.ReceiveCount}
		}
	}
	p.messages.acknowledge(work, d, end)
}

// The reasons for ignoring what a message names, beside those of package queue.
const (
	reasonMalformed     = "malformed"
	reasonForeignBucket = "foreign_bucket"
	reasonForeignPrefix = "foreign_prefix"
	reasonDirectory     = "directory_marker" // a slash at the end of the key: consoles make folders so
)

// foreign returns the reason why an object is not one of ours; empty if it is.
func (c Config) foreign(o queue.Object) string {
	switch {
	case o.Bucket != c.Bucket:
		return reasonForeignBucket
	case !strings.HasPrefix(o.Key, c.Prefix):
		return reasonForeignPrefix
	case strings.HasSuffix(o.Key, "/"):
		return reasonDirectory
	}
	return ""
}

// acceptObject records the object as an image and starts or joins its job.
func (p *Pipeline) acceptObject(ctx, work context.Context, d *delivery, o queue.Object, out chan<- *Job) {
	obj, err := identify(work, p.bucket, p.cfg.Prefix, o)
	if err != nil {
		_ = p.health.LookAtBucket(work) // while it does not answer, nothing more is taken
		delay := backoff(p.cfg.Backoff, d.msg.ReceiveCount)
		p.log.Warn().Err(err).Str("s3_key", o.Key).Dur("again_in_ms", delay).
			Msg("S3 does not say which object it is; message returned")
		p.messages.acknowledge(work, d, outcome{verdict: retry, delay: delay})
		return
	}
	img, created, err := p.store.Enqueue(work, obj)
	if err != nil {
		if store.Unwritable(err) {
			p.health.JournalFailed(err)
		}
		p.log.Error().Err(err).Str("s3_key", o.Key).Msg("journal cannot be written; message returned")
		p.messages.acknowledge(work, d, outcome{verdict: retry, delay: backoff(p.cfg.Backoff, 1)})
		return
	}
	if created {
		p.record.Queued(img)
	}
	job, fresh := p.jobs.take(img.ID, d)
	switch {
	case job == nil: // it is stuck in a stage, perhaps for ever, perhaps for seconds
		delay := backoff(p.cfg.Backoff, d.msg.ReceiveCount)
		p.messages.acknowledge(work, d, outcome{verdict: retry, delay: delay})
	case fresh:
		p.dispatch(ctx, work, job, out)
	default:
		p.record.HandedOff("joined")
	}
}

// dispatch reads the image of a job just taken and sends the job on, unless there is
// nothing to do.
func (p *Pipeline) dispatch(ctx, work context.Context, job *Job, out chan<- *Job) {
	img, err := p.store.Image(work, job.Image.ID)
	if err != nil {
		p.log.Error().Err(err).Int64("image_id", job.Image.ID).Msg("journal cannot be read; message returned")
		p.finish(work, job, outcome{verdict: retry, delay: backoff(p.cfg.Backoff, 1)})
		return
	}
	job.Image = img
	p.activations.of(work, job)
	p.traces.beginJob(work, job)
	if p.cfg.suspect(img) && p.health.Alone() != img.ID {
		p.finish(work, job, outcome{verdict: retry, delay: backoff(p.cfg.Backoff, img.CutOffs)})
		return
	}
	if o, answered := p.answerFromJournal(work, job); answered {
		p.finish(work, job, o)
		return
	}
	p.jobs.moved(job, "", jobWaiting)
	select {
	case out <- job:
	case <-ctx.Done():
		p.finish(work, job, returned)
	}
}

// answerFromJournal answers for a terminal image: "handed off". It does not answer for an
// active image with lost results, because the stages make them again, nor if a new
// message asks for the image again.
func (p *Pipeline) answerFromJournal(work context.Context, job *Job) (o outcome, answered bool) {
	switch job.Image.State {
	case store.StatePending:
		return outcome{}, false
	case store.StateActive:
		if o, settled := p.answerForActive(work, job); !settled {
			return o, o.verdict == retry
		}
	default:
		untried, err := p.hasUntriedMessage(work, job)
		if err != nil {
			p.record.Log(&job.Task).Error().Err(err).Msg("journal cannot be read; message returned")
			return outcome{verdict: retry, delay: backoff(p.cfg.Backoff, 1)}, true
		}
		if why := reopenReason(job.Image, p.rules); why != "" && untried {
			if err := p.record.Reopen(work, &job.Task, store.StageDownload, errors.New(why)); err != nil {
				p.record.Log(&job.Task).Warn().Err(err).Msg("image not taken up again now")
				return outcome{verdict: retry, delay: backoff(p.cfg.Backoff, 1)}, true
			}
			return outcome{}, false
		}
	}
	p.record.HandedOff("settled")
	line := p.record.Log(&job.Task).Info().Str("state", string(job.Image.State)).Str("reason", job.Image.Reason)
	if job.Image.State.Refused() {
		line = line.Str("remedy", fmt.Sprintf("`consumer retry %d` takes it up again", job.Image.ID))
	}
	line.Msg("handed off: nothing to do")
	if job.Image.State == store.StateDead { // dead-lettered for it, also when a sibling brought the message back
		return outcome{verdict: dead, reason: job.Image.Reason, attempts: job.Image.Failures}, true
	}
	return done, true
}

// answerForActive checks the results of an active image. It is settled if they are all
// there. If they cannot be checked, the outcome is a retry.
func (p *Pipeline) answerForActive(work context.Context, job *Job) (o outcome, settled bool) {
	for _, st := range p.table {
		err := st.check(work, &job.Task)
		if err == nil {
			continue
		}
		log := p.record.Log(&job.Task).Warn().Err(err).Str("step", string(st.name))
		if !isLoss(err) {
			log.Msg("active image cannot be looked at; message returned")
			return outcome{verdict: retry, delay: backoff(p.cfg.Backoff, 1)}, false
		}
		log.Msg("active image is not whole")
		return outcome{}, false
	}
	return done, true
}

// hasUntriedMessage reports whether a message waits for the job under which the image was
// never tried. Any other message comes again because a sibling of this record is to be
// retried, or because it could not be settled. If that opened the image again, two such
// records would bring each other back forever.
func (p *Pipeline) hasUntriedMessage(ctx context.Context, job *Job) (bool, error) {
	for _, id := range p.jobs.messageIDs(job) {
		tried, err := p.store.Tried(ctx, job.Image.ID, id)
		if err != nil || !tried {
			return !tried, err
		}
	}
	return false, nil
}

// reopenReason says why an image without a result is taken up when its object is
// notified, listed or submitted again; empty if it is not. Vanished, superseded and dead
// were true on their day. A refusal stands while the rules stand. A removed image an
// operator must submit.
func reopenReason(img store.Image, rules func(key string) string) string {
	switch img.State {
	case store.StateVanished, store.StateSuperseded, store.StateDead:
		return fmt.Sprintf("asked for again after it was %s", img.State)
	case store.StateRejected, store.StateViolation:
		if now := rules(img.Key); now != img.Rules {
			return fmt.Sprintf("refused under %q, now it is %q", img.Rules, now)
		}
	}
	return ""
}

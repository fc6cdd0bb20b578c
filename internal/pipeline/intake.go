package pipeline

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/queue"
	"imagemanager.internal/internal/store"
)

// source feeds the first stage: from the queue, and from the journal what has no message.
func (p *Pipeline) source(ctx, work context.Context, running *sync.WaitGroup) <-chan *Job {
	unfinished := p.unfinished(work) // before anybody begins an attempt
	out := make(chan *Job)
	var senders sync.WaitGroup
	senders.Go(func() { p.intake(ctx, work, out) })
	senders.Go(func() { p.resume(ctx, work, unfinished, out) })
	senders.Go(func() { p.trickle(ctx, work, out) })
	senders.Go(func() { p.sweeps(ctx) })
	senders.Go(func() { p.backfills(ctx) })
	senders.Go(func() { p.reconciles(ctx) })
	senders.Go(func() { p.watch(ctx) })
	senders.Go(func() { p.growth(ctx) })
	running.Go(func() {
		senders.Wait()
		close(out)
	})
	return out
}

// intake receives as many messages as there are permits for: none free, no call. What it
// has received it hands on before it receives again, so a full pipeline leaves messages
// visible to the other hosts on the queue.
func (p *Pipeline) intake(ctx, work context.Context, out chan<- *Job) {
	failures := 0
	p.proveOurs(ctx)
	for {
		n := p.acquire(ctx)
		if n == 0 {
			return
		}
		msgs, err := p.receive(ctx, n)
		p.releasePermits(n - len(msgs))
		if err != nil && ctx.Err() == nil {
			failures++
			p.received(err)
			wait(ctx, min(backoff(100*time.Millisecond, failures), 20*time.Second))
			continue
		}
		failures = 0
		p.condition.polled()
		for _, m := range msgs {
			// a poll that was drained while stopping, or during which the pool filled up
			if ctx.Err() != nil || !p.admit() {
				p.settle(work, p.deliver(m), abandoned)
				continue
			}
			p.accept(ctx, work, m, out)
		}
	}
}

// receive polls once when the pool has room; otherwise it waits a moment and brings
// nothing.
func (p *Pipeline) receive(ctx context.Context, n int) ([]*queue.Message, error) {
	if !p.admit() {
		wait(ctx, time.Second)
		return nil, nil
	}
	return p.Queue.Receive(ctx, n)
}

// received reports a failed poll, once every ten seconds for a class.
func (p *Pipeline) received(err error) {
	class := queue.Classify(err)
	p.metrics.receiveError(string(class))
	if p.condition.failed(class, time.Now()) {
		p.Log.Error().Err(err).Str("class", string(class)).Msg("cannot receive messages; trying again")
	}
}

// acquire waits for one permit and takes up to ten, one while messages are tried one by
// one, 0 when ctx has ended.
func (p *Pipeline) acquire(ctx context.Context) int {
	most := 10
	if p.awaitTrial(ctx) {
		most = 1
	}
	select {
	case p.permits <- struct{}{}:
	case <-ctx.Done():
		return 0
	}
	for n := 1; n < most; n++ {
		select {
		case p.permits <- struct{}{}:
		default:
			return n
		}
	}
	return most
}

func (p *Pipeline) releasePermits(n int) {
	for range n {
		<-p.permits
	}
}

// accept turns a message into jobs, one a record, and hands the new ones to the first
// stage.
func (p *Pipeline) accept(ctx, work context.Context, m *queue.Message, out chan<- *Job) {
	d := p.deliver(m)
	p.metrics.message("received")
	if m.Malformed != nil {
		p.Log.Error().Err(m.Malformed).Str("message_id", m.ID).Int("receive_count", m.ReceiveCount).
			Msg("message is no S3 notification")
		p.metrics.ignored("malformed")
		p.settle(work, d, outcome{verdict: dead, reason: m.Malformed.Error(), attempts: m.ReceiveCount})
		return
	}
	for _, ig := range m.Notification.Ignored {
		p.ignore(m, ig.Reason).Str("detail", ig.Detail).Msg("notification ignored")
	}
	end := done
	for _, err := range m.Notification.Broken {
		p.Log.Error().Err(err).Str("message_id", m.ID).Int("receive_count", m.ReceiveCount).
			Msg("a record of the message is no S3 notification")
		p.metrics.ignored("malformed")
		end = outcome{verdict: dead, reason: err.Error(), attempts: m.ReceiveCount}
	}
	for _, o := range m.Notification.Objects {
		reason := p.foreign(o)
		if reason == "" {
			p.condition.ours()
			d.add()
			p.acceptObject(ctx, work, d, o, out)
			continue
		}
		p.ignore(m, reason).Str("bucket", o.Bucket).Str("s3_key", o.Key).Msg("notification is about no image of ours")
		if reason == reasonDirectory {
			continue
		}
		p.proveOurs(work) // an image may have come from the bucket's listing meanwhile
		if all, away := p.condition.allForeign(o, fmt.Sprintf("s3://%s/%s…", p.cfg.Bucket, p.cfg.Prefix)); all {
			end = outcome{verdict: retry, delay: away}
			continue
		}
		if p.cfg.KeepForeign {
			end = outcome{verdict: dead, reason: reason, attempts: m.ReceiveCount}
		}
	}
	p.settle(work, d, end)
}

func (p *Pipeline) ignore(m *queue.Message, reason string) *zerolog.Event {
	p.metrics.ignored(reason)
	return p.Log.Info().Str("message_id", m.ID).Str("reason", reason)
}

// reasonDirectory is the reason for a key that ends in a slash: how consoles make a
// folder.
const reasonDirectory = "directory_marker"

// foreign names the reason why an object is none of ours, "" if it is one.
func (p *Pipeline) foreign(o queue.Object) string {
	switch {
	case o.Bucket != p.cfg.Bucket:
		return "foreign_bucket"
	case !strings.HasPrefix(o.Key, p.cfg.Prefix):
		return "foreign_prefix"
	case strings.HasSuffix(o.Key, "/"):
		return reasonDirectory
	}
	return ""
}

// acceptObject records the object as an image and starts or joins its job.
func (p *Pipeline) acceptObject(ctx, work context.Context, d *delivery, o queue.Object, out chan<- *Job) {
	obj, err := p.identify(work, o)
	if err != nil {
		_ = p.lookAtBucket(work) // while it does not answer nothing more is taken
		delay := backoff(p.cfg.Backoff, d.msg.ReceiveCount)
		p.Log.Warn().Err(err).Str("s3_key", o.Key).Dur("again_in_ms", delay).
			Msg("S3 does not say which object it is; message returned")
		p.settle(work, d, outcome{verdict: retry, delay: delay})
		return
	}
	img, created, err := p.Store.Enqueue(work, obj)
	if err != nil {
		if store.Unwritable(err) {
			p.condition.unwritable(err)
		}
		p.Log.Error().Err(err).Str("s3_key", o.Key).Msg("journal cannot be written; message returned")
		p.settle(work, d, outcome{verdict: retry, delay: backoff(p.cfg.Backoff, 1)})
		return
	}
	if created {
		p.metrics.event(store.EventQueued, "")
		p.logImage(img).Info().Str("event", string(store.EventQueued)).Int64("size", img.Size).Msg("queued")
	}
	job, fresh := p.take(img.ID, d)
	if job == nil {
		p.settle(work, d, outcome{verdict: retry, delay: longestStuck})
		return
	}
	if !fresh {
		p.metrics.handoff("joined")
		return
	}
	p.dispatch(ctx, work, job, out)
}

// identify makes the object of an event one. Some senders encode keys and some do not: of
// the two readings it is the one that the object has. An event that names neither version
// nor eTag is about what the key holds now: else all that it ever holds would be one
// image. What S3 does not answer is not decided.
func (p *Pipeline) identify(ctx context.Context, o queue.Object) (store.Object, error) {
	obj := store.Object{
		Bucket: o.Bucket, Key: o.Key, VersionID: o.VersionID, ETag: o.ETag, Sequencer: o.Sequencer,
		Size: o.Size,
	}
	ambiguous := o.AltKey != "" && strings.HasPrefix(o.AltKey, p.cfg.Prefix)
	if !ambiguous && obj.Version() != "" {
		return obj, nil
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	found, err := p.Bucket.Head(ctx, o.Key)
	another := err == nil && o.ETag != "" && found.ETag != o.ETag
	if ambiguous && (another || errors.Is(err, download.ErrGone)) {
		other, e := p.Bucket.Head(ctx, o.AltKey)
		if e == nil && (o.ETag == "" || other.ETag == o.ETag) {
			obj.Key, found, err = o.AltKey, other, nil
		} else if e != nil && !errors.Is(e, download.ErrGone) {
			err = e
		}
	}
	if err != nil && download.Scope(err) == download.AllObjects {
		return obj, err
	}
	if err == nil && obj.Version() == "" {
		obj.VersionID, obj.ETag, obj.Size = found.VersionID, found.ETag, found.Size
	}
	return obj, nil
}

// longestStuck is how long a message is given back whose image is at a stage that does
// not come back.
const longestStuck = 15 * time.Minute

// dispatch reads the image of a job just taken and sends the job on, unless there is
// nothing to do.
func (p *Pipeline) dispatch(ctx, work context.Context, job *Job, out chan<- *Job) {
	img, err := p.Store.Image(work, job.image.ID)
	if err != nil {
		p.Log.Error().Err(err).Int64("image_id", job.image.ID).Msg("journal cannot be read; message returned")
		p.finish(work, job, outcome{verdict: retry, delay: backoff(p.cfg.Backoff, 1)})
		return
	}
	job.image = img
	if p.cfg.suspect(img) && p.lonely() != img.ID {
		again := backoff(p.cfg.Backoff, img.CutOffs)
		p.finish(work, job, outcome{verdict: retry, delay: again})
		return
	}
	if o, settled := p.settled(work, job); settled {
		p.finish(work, job, o)
		return
	}
	select {
	case out <- job:
	case <-ctx.Done():
		p.finish(work, job, abandoned)
	}
}

// settled answers for an image that is terminal already: "handed off". An active one
// whose results no longer verify is not settled: the stages make again what was lost.
// Neither is one that a new message asks for again.
func (p *Pipeline) settled(work context.Context, job *Job) (outcome, bool) {
	switch job.image.State {
	case store.StatePending:
		return outcome{}, false
	case store.StateActive:
		for _, st := range p.table {
			if err := st.holds(work, job); err != nil {
				if !isLoss(err) {
					p.logJob(job).Warn().Err(err).Str("step", string(st.name)).
						Msg("active image cannot be looked at; message returned")
					return outcome{verdict: retry, delay: backoff(p.cfg.Backoff, 1)}, true
				}
				p.logJob(job).Warn().Err(err).Str("step", string(st.name)).Msg("active image is not whole")
				return outcome{}, false
			}
		}
	default:
		anew, err := p.askedAnew(work, job)
		if err != nil {
			p.logJob(job).Error().Err(err).Msg("journal cannot be read; message returned")
			return outcome{verdict: retry, delay: backoff(p.cfg.Backoff, 1)}, true
		}
		if why := askedAgain(job.image, p.cfg.Rules); why != "" && anew {
			if err := p.reopen(work, job, store.StageDownload, errors.New(why)); err != nil {
				p.logJob(job).Warn().Err(err).Msg("image not taken up again now")
				return outcome{verdict: retry, delay: backoff(p.cfg.Backoff, 1)}, true
			}
			return outcome{}, false
		}
	}
	p.metrics.handoff("settled")
	line := p.logJob(job).Info().Str("state", string(job.image.State)).Str("reason", job.image.Reason)
	if job.image.State.Refused() {
		line = line.Str("remedy", fmt.Sprintf("`consumer submit %s` makes it again", job.image.Key))
	}
	line.Msg("handed off: nothing to do")
	if job.image.State == store.StateDead { // the message is buried for it, also when a sibling made it come again
		return outcome{verdict: dead, reason: job.image.Reason, attempts: job.image.Failures}, true
	}
	return done, true
}

// askedAgain says why an image that ended without a result is taken up when its object is
// notified, listed or submitted again; "" if it is not. What was said of the object was
// so on that day; what was refused stays so under the same rules; what an operator
// removed he must submit himself.
func askedAgain(img store.Image, rules func(key string) string) string {
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

// wait returns after d, or when ctx ends.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

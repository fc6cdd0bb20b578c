package pipeline

import (
	"context"
	"time"

	"github.com/rs/zerolog"

	"imagemanager.internal/internal/store"
)

// Every event of the journal passes through this file: written, then counted, then logged
// in one line.

func (p *Pipeline) logImage(img store.Image) *zerolog.Logger {
	l := p.Log.With().Int64("image_id", img.ID).Str("s3_key", img.Key).Logger()
	return &l
}

func (p *Pipeline) logJob(job *Job) *zerolog.Logger {
	l := p.logImage(job.image).With().Int64("attempt", job.attempt.N).Logger()
	return &l
}

func (p *Pipeline) event(job *Job, kind store.EventKind, step store.Stage) *zerolog.Event {
	p.metrics.event(kind, step)
	return p.logJob(job).Info().Str("event", string(kind)).Str("step", string(step))
}

// begin opens an attempt: from here on only this job may write to the image.
func (p *Pipeline) begin(ctx context.Context, job *Job, st store.Stage) error {
	a, err := p.Store.Begin(ctx, job.image.ID, st, p.messagesOf(job)...)
	if err != nil {
		return err
	}
	job.attempt, job.image.Attempt, job.image.Running = a, a.N, true
	p.mu.Lock()
	job.began = len(job.deliveries)
	p.mu.Unlock()
	p.event(job, store.EventBegun, st).Msgf("%s begun", st)
	return nil
}

// ended notes the image as the event that ended the attempt left it.
func (p *Pipeline) ended(job *Job, img store.Image, began time.Time) *zerolog.Event {
	job.image = img
	return p.event(job, store.EventDone, job.attempt.Stage).Dur("took_ms", time.Since(began))
}

// advance records a device's next state.
func (p *Pipeline) advance(ctx context.Context, job *Job, d *store.Device, to store.DeviceState,
	tree *store.Tree,
) error {
	next, err := p.Store.Advance(ctx, job.attempt, *d, to, tree)
	if err != nil {
		return err
	}
	*d = next
	if tree != nil {
		job.image.Tree = tree
	}
	p.metrics.event(store.EventStep, job.attempt.Stage)
	p.logJob(job).Debug().Str("event", string(store.EventStep)).Str("step", string(job.attempt.Stage)).
		Int64("device_id", d.ID).
		Str("device_state", string(to)).Msgf("device %s", to)
	return nil
}

// handOff ends an attempt whose result was there already.
func (p *Pipeline) handOff(ctx context.Context, job *Job, why string) error {
	img, err := p.Store.HandedOff(ctx, job.attempt)
	if err != nil {
		return err
	}
	job.image = img
	p.metrics.handoff("stage")
	p.event(job, store.EventDone, job.attempt.Stage).Msgf("%s handed off: %s", job.attempt.Stage, why)
	return nil
}

// conclude records the verdict on a failed attempt. A verdict that could not be recorded
// is none: the message comes back.
func (p *Pipeline) conclude(ctx context.Context, job *Job, j judgement) outcome {
	p.metrics.failure(job.attempt.Stage, j)
	log := p.logJob(job).With().Str("event", string(store.EventFailed)).Str("step", string(job.attempt.Stage)).
		Str("verdict", string(j.verdict)).Str("reason", j.class).Logger()
	if j.verdict == halt || j.verdict == outage {
		log.Error().Dur("again_in_ms", j.delay).Msg(j.text)
		p.undone(ctx, job, j.text)
		return outcome{verdict: retry, delay: j.delay}
	}
	f := store.Failure{
		Verdict: string(j.verdict), Reason: j.text, Doubt: j.doubt, Fetched: j.fetched,
		Messages: p.messagesOf(job),
	}
	switch j.verdict {
	case vanished, superseded:
		f.Messages = nil // those that came after the begin tell of what came after: each is a chance of its own
	case reject, violation:
		f.Rules = p.cfg.Rules(job.image.Key)
	}
	img, err := p.Store.Fail(ctx, job.attempt, f)
	if err != nil {
		log.Error().Err(err).Str("text", j.text).Msg("verdict not recorded; the image is taken up again")
		return outcome{verdict: retry, delay: backoff(p.cfg.Backoff, job.image.Failures+1)}
	}
	job.image = img
	switch j.verdict {
	case retry:
		if j.stack != nil {
			log.Error().Bytes("stack", j.stack).Msg("a stage panicked: please report it")
		}
		log.Warn().Dur("again_in_ms", j.delay).Msg(j.text)
	case violation:
		p.metrics.violation(j.class)
		securityViolation(log.Error(), j, img).Msg(j.text)
	default:
		log.Error().Msg(j.text)
	}
	return outcome{verdict: j.verdict, delay: j.delay, reason: j.text, attempts: img.Failures}
}

// securityViolation is the one line about a refused attack: which rule, which entry,
// where in which archive.
func securityViolation(line *zerolog.Event, j judgement, img store.Image) *zerolog.Event {
	line = line.Str("security_violation", j.class)
	if r := j.rejection; r != nil {
		line = line.Str("entry", r.Entry).Int("entry_index", r.Index).Int64("offset", r.Offset).Int("more", r.More)
	}
	if img.Blob != nil {
		line = line.Str("sha256", img.Blob.SHA256)
	}
	return line
}

// undone records that an attempt was rolled back without a verdict.
func (p *Pipeline) undone(ctx context.Context, job *Job, why string) {
	if !job.image.Running {
		return
	}
	img, err := p.Store.Undo(ctx, job.attempt, why)
	if err != nil {
		p.logJob(job).Warn().Err(err).Msg("roll-back not recorded; the next start finds the attempt cut off")
		return
	}
	job.image = img
	p.event(job, store.EventUndone, job.attempt.Stage).Msgf("%s rolled back: %s", job.attempt.Stage, why)
}

// reopen takes a job back to a stage whose result was lost.
func (p *Pipeline) reopen(ctx context.Context, job *Job, st store.Stage, lost error) error {
	img, err := p.Store.Reopen(ctx, job.image.ID, st, lost.Error())
	if err != nil {
		return err
	}
	job.image = img
	p.event(job, store.EventReopened, st).Msgf("%s is made again: %v", st, lost)
	return nil
}

// progress returns a callback that logs how far a stage is, at most once a second.
func (p *Pipeline) progress(job *Job, total int64) func(done int64) {
	last := time.Now()
	return func(done int64) {
		if time.Since(last) < time.Second {
			return
		}
		last = time.Now()
		p.logJob(job).Debug().Str("step", string(job.attempt.Stage)).Int64("done_bytes", done).
			Int64("total_bytes", total).Msg("progress")
	}
}

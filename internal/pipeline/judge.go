package pipeline

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/rs/zerolog"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/pipeline/health"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/store"
)

// judgement is a verdict with its reason: class is bounded, for metrics; text is for
// people.
type judgement struct {
	verdict verdict
	class   string
	text    string
	delay   time.Duration
	fetched int64       // bytes newly on disk, of a failed download
	doubt   store.State // retry: an end, not believed until the next attempt finds the same

	exhausted bool // dead: a retry, had there been attempts left

	rejection *archive.Rejection // of a refused archive: which entry
	stack     []byte             // of a panic
}

// judge is the one place with an opinion on errors. Unknown errors are retried, and
// attempts are bounded. A failure is not counted if the machine is not fit for any work,
// or if it is an outage. A failure for lack of space is counted if the machine has room
// for other images.
func (p *Pipeline) judge(t *provision.Task, err error) judgement {
	v, class := classify(err)
	if store.Unwritable(err) {
		p.health.JournalFailed(err)
	}
	j := judgement{verdict: v, class: class, text: err.Error(), fetched: download.Progress(err)}
	errors.As(err, &j.rejection)
	var panicked *archive.Panic
	if errors.As(err, &panicked) {
		j.stack = panicked.Stack
	}
	switch v {
	case halt:
		j.delay = backoff(p.cfg.Backoff, 1)
		if p.health.Capacity().Err() == nil {
			j.verdict = retry
		}
	case vanished, superseded:
		return p.doubt(t, j)
	case retry:
		if t.Attempt.Stage == store.StageDownload && class == "timeout" { // the network's or the server's
			j = p.weigh(t, j, err)
		}
	case outage:
		j = p.weigh(t, j, err)
	case reject:
		if class == classRefused && p.health.Breaker.BucketDown() != nil {
			j = p.weigh(t, j, err)
		}
	}
	if j.verdict != retry {
		return j
	}
	failures := t.Image.Failures + 1
	if j.fetched > 0 { // it got further: no step towards giving up
		failures = 0
	}
	if failures >= p.cfg.MaxAttempts {
		j.verdict, j.exhausted = dead, true
	}
	j.delay = backoff(p.cfg.Backoff, failures)
	return j
}

// doubt believes in the loss or the replacement of an object only after two attempts in a
// row found it, some time apart. A proxy between us and S3 also says such things.
func (p *Pipeline) doubt(t *provision.Task, j judgement) judgement {
	if said := store.State(j.verdict); t.Image.Doubt != said {
		j.doubt, j.verdict, j.delay = said, retry, backoff(p.cfg.Backoff, 1)
	}
	return j
}

// weigh decides whether a possible outage counts against the image.
func (p *Pipeline) weigh(t *provision.Task, j judgement, err error) judgement {
	b := &p.health.Breaker
	if j.class == classBusy { // whoever has the device open says nothing of other images
		j.verdict, j.delay = outage, min(backoff(p.cfg.Backoff, b.FailedAlone(t.Image.ID)), health.LongestWait)
		return j
	}
	counts, n, images := b.Failed(t.Attempt.Stage, t.Image.ID, err)
	down := t.Attempt.Stage == store.StageDownload && b.BucketDown() != nil
	if ownClasses[j.class] && images < health.StreakLength {
		counts = true
	}
	if counts && !down {
		j.verdict = retry
		return j
	}
	if j.fetched > 0 {
		n = 1
	}
	j.verdict, j.delay = outage, min(backoff(p.cfg.Backoff, n), health.LongestWait)
	return j
}

// recordFailure records the verdict on a failed attempt. Without a record the
// verdict does not hold: the message comes back.
func (p *Pipeline) recordFailure(ctx context.Context, job *Job, j judgement) outcome {
	job.trace.failed(j)
	p.metrics.stage.failure(job.Attempt.Stage, j)
	log := p.record.Log(&job.Task).With().Str("event", string(store.EventFailed)).
		Str("step", string(job.Attempt.Stage)).Str("verdict", string(j.verdict)).Str("reason", j.class).
		Dur("took_ms", time.Since(job.Began)).Logger()
	if j.verdict == halt || j.verdict == outage {
		log.Error().Dur("again_in_ms", j.delay).Msg(j.text)
		p.record.Undo(ctx, &job.Task, j.text)
		return outcome{verdict: retry, delay: j.delay}
	}
	f := store.Failure{
		Verdict: string(j.verdict), Reason: j.text, Doubt: j.doubt, Fetched: j.fetched,
		Messages: p.jobs.messageIDs(job),
	}
	switch j.verdict {
	case vanished, superseded:
		f.Messages = nil // a message from after the begin tells of what came after: it is a new chance
	case reject, violation:
		f.Rules = p.rules(job.Image.Key)
	}
	img, err := p.store.Fail(ctx, job.Attempt, f)
	if err != nil {
		log.Error().Err(err).Str("text", j.text).Msg("verdict not recorded; the image is taken up again")
		return outcome{verdict: retry, delay: backoff(p.cfg.Backoff, job.Image.Failures+1)}
	}
	job.Image = img
	p.logFailure(&log, j, img)
	return outcome{verdict: j.verdict, delay: j.delay, reason: j.text, attempts: img.Failures}
}

// logFailure writes the log line of a recorded verdict. For a refused archive it names
// the rule, the entry, and its place in the archive.
func (p *Pipeline) logFailure(log *zerolog.Logger, j judgement, img store.Image) {
	switch j.verdict {
	case retry:
		if j.stack != nil {
			log.Error().Bytes("stack", j.stack).Msg("a stage panicked: please report it")
		}
		log.Warn().Dur("again_in_ms", j.delay).Msg(j.text)
	case violation:
		p.metrics.violation(j.class)
		line := j.place(log.Error().Str("security_violation", j.class))
		if img.Blob != nil {
			line = line.Str("sha256", img.Blob.SHA256)
		}
		line.Msg(j.text)
	case superseded, vanished: // as in any bucket that is in use
		log.Info().Msg(j.text)
	case reject:
		j.place(log.Warn()).Msg(j.text)
	default:
		log.Error().Msg(j.text)
	}
}

// place adds the place of what an archive is refused for.
func (j judgement) place(line *zerolog.Event) *zerolog.Event {
	r := j.rejection
	if r == nil {
		return line
	}
	return line.Str("entry", r.Entry).Int("entry_index", r.Index).Int64("offset", r.Offset).Int("more", r.More())
}

// backoff returns the delay before the next attempt. It doubles from base with every
// failure, up to 15 minutes, with full jitter: two consumers never march in step.
func backoff(base time.Duration, failures int) time.Duration {
	const ceiling = 15 * time.Minute
	d := base << min(max(failures, 1)-1, 20)
	if d > ceiling || d <= 0 {
		d = ceiling
	}
	return time.Duration(rand.Int64N(int64(d))) + time.Second
}

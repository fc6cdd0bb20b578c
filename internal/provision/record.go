package provision

import (
	"context"
	"time"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/trace"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/store"
)

// Recorder counts and logs the events of the journal. Each is written first, then
// counted, then logged in one line.
type Recorder struct {
	store   *store.Store
	log     zerolog.Logger
	metrics *Metrics
}

// NewRecorder returns a Recorder.
func NewRecorder(s *store.Store, log zerolog.Logger, m *Metrics) *Recorder {
	return &Recorder{store: s, log: log, metrics: m}
}

// LogImage returns a logger that names the image and its trace in its lines.
func (r *Recorder) LogImage(img store.Image) *zerolog.Logger {
	l := r.log.With().Int64("image_id", img.ID).Str("s3_key", img.Key).Str("trace_id", img.TraceID).Logger()
	return &l
}

// Log returns a logger for the image, the attempt and its device.
func (r *Recorder) Log(t *Task) *zerolog.Logger {
	l := r.LogImage(t.Image).With().Int64("attempt", t.Attempt.N)
	if t.Device != 0 {
		l = l.Int64("device_id", t.Device)
	}
	if t.SpanID != "" {
		l = l.Str("span_id", t.SpanID)
	}
	log := l.Logger()
	return &log
}

// Event counts a recorded event, and begins its log line.
func (r *Recorder) Event(t *Task, kind store.EventKind, st store.Stage) *zerolog.Event {
	r.metrics.event(kind, st)
	return r.Log(t).Info().Str("event", string(kind)).Str("step", string(st))
}

// Queued counts and logs a new image.
func (r *Recorder) Queued(img store.Image) {
	r.metrics.event(store.EventQueued, "")
	r.LogImage(img).Info().Str("event", string(store.EventQueued)).Int64("size", img.Size).Msg("queued")
}

// removed counts a removal that is in the journal, and begins its log line. The stage is
// that of a removed snapshot; empty for an image.
func (r *Recorder) removed(img store.Image, st store.Stage) *zerolog.Event {
	r.metrics.event(store.EventRemoved, st)
	return r.LogImage(img).Info().Str("event", string(store.EventRemoved)).Str("step", string(st))
}

// Begin opens an attempt: from here on no other may write to the image. The messages are
// the ids of those waiting for it.
func (r *Recorder) Begin(ctx context.Context, t *Task, st store.Stage, messages ...string) error {
	a, err := r.store.Begin(ctx, t.Image.ID, st, messages...)
	if err != nil {
		return err
	}
	t.Attempt, t.Image.Attempt, t.Image.Running, t.Began = a, a.N, true, time.Now()
	t.Device = 0
	t.Progress.set(0, 0)
	r.Event(t, store.EventBegun, st).Msgf("%s begun", st)
	return nil
}

// reserve takes the id of a new device for the attempt.
func (r *Recorder) reserve(ctx context.Context, t *Task, d store.Device) (store.Device, error) {
	d, err := r.store.Reserve(ctx, t.Attempt, d)
	if err != nil {
		return d, err
	}
	t.Device = d.ID
	r.stepped(t, d)
	return d, nil
}

// stepped counts and logs a device's new state.
func (r *Recorder) stepped(t *Task, d store.Device) {
	on := *t
	on.Device = d.ID // a lost one is not the attempt's own
	r.Event(&on, store.EventStep, t.Attempt.Stage).Str("device_state", string(d.State)).Msgf("device %s", d.State)
}

// advance records a device's next state. The last one before it is ready is that of seal.
func (r *Recorder) advance(ctx context.Context, t *Task, d *store.Device, to store.DeviceState) error {
	next, err := r.store.Advance(ctx, t.Attempt, *d, to)
	if err != nil {
		return err
	}
	*d = next
	r.stepped(t, next)
	return nil
}

// seal records a device's seal with its tree, and what the policy changed in it.
func (r *Recorder) seal(ctx context.Context, t *Task, d *store.Device, tree *store.Tree,
	changes []archive.Adjustment,
) error {
	kept := make([]store.Adjustment, 0, len(changes))
	for _, c := range changes {
		kept = append(kept, store.Adjustment{Rule: string(c.Reason), Entry: c.Entry, From: c.From, To: c.To})
	}
	next, err := r.store.Seal(ctx, t.Attempt, *d, *tree, kept)
	if err != nil {
		return err
	}
	*d, t.Image.Tree = next, tree
	r.stepped(t, next)
	return nil
}

// done notes a successful end of the attempt. It left the image as given.
func (r *Recorder) done(t *Task, img store.Image) *zerolog.Event {
	t.Image = img
	return r.Event(t, store.EventDone, t.Attempt.Stage).Str("verdict", "done").Dur("took_ms", time.Since(t.Began))
}

// HandOff ends an attempt because its result was there already.
func (r *Recorder) HandOff(ctx context.Context, t *Task, why string) error {
	img, err := r.store.HandOff(ctx, t.Attempt)
	if err != nil {
		return err
	}
	t.Image = img
	trace.SpanFromContext(ctx).AddEvent("handed off")
	r.metrics.HandedOff("stage")
	r.Event(t, store.EventDone, t.Attempt.Stage).Msgf("%s handed off: %s", t.Attempt.Stage, why)
	return nil
}

// Undo records a roll-back without a verdict. If it cannot be written, the next start
// finds the attempt and ends it.
func (r *Recorder) Undo(ctx context.Context, t *Task, why string) {
	if !t.Image.Running {
		return
	}
	img, err := r.store.Undo(ctx, t.Attempt, why)
	if err != nil {
		r.Log(t).Warn().Err(err).Msg("roll-back not recorded; the next start finds the attempt cut off")
		return
	}
	t.Image = img
	r.Event(t, store.EventUndone, t.Attempt.Stage).Dur("took_ms", time.Since(t.Began)).Msgf("%s rolled back: %s",
		t.Attempt.Stage, why)
}

// Reopen takes an image back to a stage after the loss of its result.
func (r *Recorder) Reopen(ctx context.Context, t *Task, st store.Stage, cause error) error {
	img, err := r.store.Reopen(ctx, t.Image.ID, st, cause.Error())
	if err != nil {
		return err
	}
	t.Image = img
	r.Event(t, store.EventReopened, st).Msgf("%s is made again: %v", st, cause)
	return nil
}

// LoseDevice takes an image back to the stage of a device lost by the pool.
func (r *Recorder) LoseDevice(ctx context.Context, t *Task, d store.Device, why string) error {
	img, err := r.store.RecordLoss(ctx, d, why)
	if err != nil {
		return err
	}
	t.Image = img
	t.Device = d.ID
	r.Event(t, store.EventReopened, img.Stage).Str("kind", string(d.Kind)).
		Msgf("%s is made again: %s", img.Stage, img.Reason)
	return nil
}

// progress returns a callback. It notes how far a stage has come, and logs it at most
// once a second.
func (r *Recorder) progress(t *Task, total int64) func(done int64) {
	last := time.Now()
	t.Progress.set(0, total)
	return func(done int64) {
		t.Progress.set(done, total)
		if time.Since(last) < time.Second {
			return
		}
		last = time.Now()
		r.Log(t).Debug().Str("step", string(t.Attempt.Stage)).Int64("done_bytes", done).
			Int64("total_bytes", total).Msg("progress")
	}
}

// HandedOff counts work done before; how is "joined", "settled" or "stage".
func (r *Recorder) HandedOff(how string) { r.metrics.HandedOff(how) }

package pipeline

import (
	"context"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"imagemanager.internal/internal/span"
	"imagemanager.internal/internal/store"
)

// An image has one trace, whose id is in the journal. Every job of the image is a span
// without a parent in it, whichever process and whichever message the job is of. Below it
// is a span for each attempt at a stage, and for the wait before it.

// traces makes the spans of jobs.
type traces struct {
	tracer trace.Tracer
	jobs   *jobs
	store  *store.Store
}

// jobTrace are the spans of a job. The zero value has none.
type jobTrace struct {
	job     trace.Span // guarded by jobs.mu, as messages join it
	attempt trace.Span // the present one, or the last
	ready   time.Time  // since when the job waits for a worker
}

// inTraceOf returns a context in which a span is one of the image's trace, and has no
// parent.
func inTraceOf(ctx context.Context, img store.Image) context.Context {
	id, _ := trace.TraceIDFromHex(img.TraceID) // an image that could not be read gets a new trace
	return trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{TraceID: id}))
}

// beginJob begins the span of a job whose image is known.
func (ts *traces) beginJob(ctx context.Context, job *Job) {
	_, s := ts.tracer.Start(inTraceOf(ctx, job.Image), "process images",
		trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
			semconv.MessagingSystemAWSSQS, semconv.MessagingOperationTypeProcess,
			semconv.MessagingOperationName("process"),
			span.String("aws.s3.bucket", job.Image.Bucket), span.String("aws.s3.key", job.Image.Key),
			attribute.Int64("image.id", job.Image.ID),
		))
	ts.jobs.mu.Lock()
	defer ts.jobs.mu.Unlock()
	for _, d := range job.deliveries {
		d.link(s)
	}
	job.trace.job, job.trace.ready = s, time.Now()
}

// join links a message that came for a job under way. jobs.mu is held.
func (t *jobTrace) join(d *delivery) {
	if t.job != nil {
		d.link(t.job)
	}
}

// beginAttempt begins the span of an attempt at a stage, after that of the wait for it.
// The function returned ends it.
func (ts *traces) beginAttempt(ctx context.Context, st stage, job *Job) (context.Context, func()) {
	if job.trace.job != nil {
		ctx = trace.ContextWithSpan(ctx, job.trace.job)
		_, waited := ts.tracer.Start(ctx, "wait", trace.WithTimestamp(job.trace.ready))
		waited.End()
	}
	ctx, s := ts.tracer.Start(ctx, string(st.name))
	job.trace.attempt = s
	if s.IsRecording() {
		job.SpanID = s.SpanContext().SpanID().String()
	}
	return ctx, func() {
		defer s.End()
		if job.late != nil { // the task is not ours any more
			span.Fail(s, job.stuckErr.Error())
			return
		}
		s.SetAttributes(results(st.name, job.Image)...)
		job.SpanID, job.trace.ready = "", time.Now()
	}
}

// results describe what a stage made of an image; none if the image is still to go
// through it.
func results(st store.Stage, img store.Image) []attribute.KeyValue {
	switch {
	case img.Stage == st:
	case st == store.StageDownload && img.Blob != nil:
		return []attribute.KeyValue{
			attribute.Int64("image.bytes", img.Blob.Size), attribute.String("image.sha256", img.Blob.SHA256),
		}
	case st == store.StageUnpack && img.Tree != nil:
		return []attribute.KeyValue{
			attribute.Int("image.entries", img.Tree.Entries), attribute.Int64("image.bytes", img.Tree.Bytes),
			attribute.Int64("device.id", img.Tree.Device), attribute.String("image.policy", img.Tree.Policy),
		}
	}
	return nil
}

// failed notes the verdict on the attempt, and with it on the job.
func (t *jobTrace) failed(j judgement) {
	for _, s := range []trace.Span{t.attempt, t.job} {
		if s == nil {
			continue
		}
		s.SetAttributes(attribute.String("image.verdict", string(j.verdict)), attribute.String("image.reason", j.class))
		if j.fetched > 0 {
			s.SetAttributes(attribute.Int64("image.fetched_bytes", j.fetched))
		}
		span.Fail(s, j.text)
	}
}

// end ends the span of the job.
func (t *jobTrace) end(v verdict) {
	if t.job != nil {
		t.job.SetAttributes(attribute.String("image.outcome", string(v)))
		t.job.End()
	}
}

// interrupted makes a span of every attempt that died with an earlier process: its
// own was lost. It is as long as the journal knows of the attempt.
func (ts *traces) interrupted(ctx context.Context) error {
	pending, err := ts.store.PendingImages(ctx)
	if err != nil {
		return err
	}
	for _, img := range pending {
		if !img.Running {
			continue
		}
		events, err := ts.store.History(ctx, img.ID)
		if err != nil {
			return err
		}
		ts.cutOff(ctx, img, events)
	}
	return nil
}

// cutOff makes the span of an image's newest attempt.
func (ts *traces) cutOff(ctx context.Context, img store.Image, events []store.Event) {
	i := slices.IndexFunc(events, func(e store.Event) bool {
		return e.Kind == store.EventBegun && e.Attempt == img.Attempt
	})
	if i < 0 {
		return
	}
	_, s := ts.tracer.Start(inTraceOf(ctx, img), "interrupted", trace.WithTimestamp(events[i].At), trace.WithAttributes(
		attribute.Int64("image.id", img.ID), attribute.String("image.stage", string(events[i].Stage)),
		attribute.Int64("image.attempt", img.Attempt),
	))
	span.Fail(s, "the process or the machine died during the attempt")
	s.End(trace.WithTimestamp(events[len(events)-1].At))
}

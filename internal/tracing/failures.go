package tracing

import (
	"sync"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// mostHeld bounds the spans that wait for the end of their job. A job has about thirty,
// and there are at most a few dozen jobs at once.
const mostHeld = 2048

// recordAll is a sampler that has all spans recorded. Those that it does not sample are
// not exported, unless their job fails: that shows at its end only.
type recordAll struct{ sdktrace.Sampler }

// ShouldSample implements sdktrace.Sampler.
func (s recordAll) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	r := s.Sampler.ShouldSample(p)
	if r.Decision == sdktrace.Drop {
		r.Decision = sdktrace.RecordOnly
	}
	return r
}

// failures is a span processor. It passes sampled spans on to the next one, and with them
// the unsampled spans of a job that failed.
type failures struct {
	sdktrace.SpanProcessor // the next one

	mu   sync.Mutex
	held map[trace.TraceID][]sdktrace.ReadOnlySpan // of jobs that have not ended
	n    int                                       // how many these are
}

func keepFailures(next sdktrace.SpanProcessor) *failures {
	return &failures{SpanProcessor: next, held: map[trace.TraceID][]sdktrace.ReadOnlySpan{}}
}

// OnEnd implements sdktrace.SpanProcessor.
func (f *failures) OnEnd(s sdktrace.ReadOnlySpan) {
	if s.SpanContext().IsSampled() {
		f.SpanProcessor.OnEnd(s)
		return
	}
	for _, s := range f.hold(s) {
		f.SpanProcessor.OnEnd(kept{s})
	}
}

// hold keeps a span until its job ends, and returns the spans of a job that failed. The
// end of a span without a parent is the end of the job. Spans beyond mostHeld are lost.
func (f *failures) hold(s sdktrace.ReadOnlySpan) []sdktrace.ReadOnlySpan {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := s.SpanContext().TraceID()
	if s.Parent().SpanID().IsValid() {
		if f.n < mostHeld {
			f.held[id] = append(f.held[id], s)
			f.n++
		}
		return nil
	}
	job := f.held[id]
	f.n -= len(job)
	delete(f.held, id)
	if s.Status().Code != codes.Error {
		return nil
	}
	return append(job, s)
}

// kept is a span that counts as sampled after all.
type kept struct{ sdktrace.ReadOnlySpan }

// SpanContext implements sdktrace.ReadOnlySpan.
func (k kept) SpanContext() trace.SpanContext {
	sc := k.ReadOnlySpan.SpanContext()
	return sc.WithTraceFlags(sc.TraceFlags().WithSampled(true))
}

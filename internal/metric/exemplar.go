package metric

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
)

// Observe adds a value to a histogram. A sampled trace in ctx becomes the exemplar of the
// value's bucket: it leads from a slow bucket to a slow call.
func Observe(ctx context.Context, histogram prometheus.Observer, value float64) {
	span := trace.SpanContextFromContext(ctx)
	if h, is := histogram.(prometheus.ExemplarObserver); is && span.IsSampled() {
		h.ObserveWithExemplar(value, prometheus.Labels{"trace_id": span.TraceID().String()})
		return
	}
	histogram.Observe(value)
}

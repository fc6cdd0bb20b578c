package metric

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
)

// The exemplar of a bucket is the trace, if it is sampled.
func TestExemplar(t *testing.T) {
	for name, tc := range map[string]struct {
		flags trace.TraceFlags
		want  string
	}{
		"sampled":     {trace.FlagsSampled, "01000000000000000000000000000000"},
		"not sampled": {0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			reg := prometheus.NewRegistry()
			h := Factory(reg).NewHistogram(Histogram("wait_seconds", "Time waited.", 1, 2))
			ctx := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
				TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: tc.flags,
			}))
			Observe(ctx, h, 1.5)
			families, err := reg.Gather()
			if err != nil {
				t.Fatal(err)
			}
			got := families[0].GetMetric()[0].GetHistogram()
			trace := ""
			for _, label := range got.GetBucket()[1].GetExemplar().GetLabel() {
				trace += label.GetValue()
			}
			if got.GetSampleCount() != 1 || trace != tc.want {
				t.Errorf("%d values, trace %q, want %q", got.GetSampleCount(), trace, tc.want)
			}
		})
	}
}

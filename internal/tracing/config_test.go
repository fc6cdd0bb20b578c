package tracing

import (
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/trace"
)

// Without the variables, or with one that says so, there are no traces: no exporter, no
// goroutine, no span that is recorded.
func TestOff(t *testing.T) {
	for _, vars := range [][]string{
		nil,
		{"OTEL_EXPORTER_OTLP_ENDPOINT="},
		{"OTEL_TRACES_SAMPLER=always_on"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", "OTEL_SDK_DISABLED=TRUE"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=http://x:1", "OTEL_TRACES_EXPORTER=none", "OTEL_EXPORTER_OTLP_PROTOCOL=x"},
	} {
		setenv(t, vars...)
		p, stop := start(t)
		if _, span := p.Tracer("test").Start(t.Context(), "x"); span.IsRecording() {
			t.Errorf("%v: a span is recorded", vars)
		}
		stop()
	}
}

// On are they by an endpoint or by an exporter.
func TestOn(t *testing.T) {
	for _, vars := range [][]string{
		{"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", "OTEL_SDK_DISABLED=false"},
		{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=https://x/v1/traces", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/json"},
		{"OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"},
		{"OTEL_TRACES_EXPORTER=console", "OTEL_TRACES_SAMPLER=traceidratio", "OTEL_TRACES_SAMPLER_ARG=0.25"},
	} {
		setenv(t, vars...)
		p, stop := start(t)
		if _, span := p.Tracer("test").Start(t.Context(), "x"); !span.IsRecording() {
			t.Errorf("%v: no span is recorded", vars)
		}
		stop()
	}
}

// Every bad value is refused, and named with what to write.
func TestBadValues(t *testing.T) {
	setenv(t, "OTEL_SDK_DISABLED=yes", "OTEL_TRACES_EXPORTER=otlp",
		"OTEL_EXPORTER_OTLP_PROTOCOL=thrift", "OTEL_EXPORTER_OTLP_ENDPOINT=localhost:4318",
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://", "OTEL_TRACES_SAMPLER=parentbased_traceidratio",
		"OTEL_TRACES_SAMPLER_ARG=10%", "OTEL_RESOURCE_ATTRIBUTES=prod")
	_, err := ReadConfig()
	for _, want := range []string{
		`OTEL_SDK_DISABLED "yes" is not true, false`,
		`OTEL_EXPORTER_OTLP_PROTOCOL "thrift" is not grpc, http/protobuf, http/json`,
		`OTEL_EXPORTER_OTLP_ENDPOINT "localhost:4318" is not a URL: write http://host:4318`,
		`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT "http://" is not a URL`,
		`OTEL_TRACES_SAMPLER_ARG "10%" is not a number from 0 to 1`,
		`OTEL_RESOURCE_ATTRIBUTES "prod": `,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
	for bad, want := range map[string]string{
		"OTEL_TRACES_EXPORTER=jaeger":   `OTEL_TRACES_EXPORTER "jaeger" is not otlp, console, none`,
		"OTEL_TRACES_SAMPLER=sometimes": `OTEL_TRACES_SAMPLER "sometimes" is not always_on, `,
	} {
		setenv(t, "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", bad)
		if _, err := ReadConfig(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// BenchmarkUnsampled is the cost of a job's spans if nobody looks at them.
func BenchmarkUnsampled(b *testing.B) {
	p, _, _ := Start(b.Context(), Config{}, "", zerolog.Nop()) // no traces, no error
	for b.Loop() {
		job(p, trace.TraceID{1}, false)
	}
}

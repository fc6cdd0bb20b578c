package main

import "testing"

// The variables of OpenTelemetry are checked with all others, before anything is opened.
func TestTraceVariables(t *testing.T) {
	refusals{
		{"localhost:4318", "write http://host:4318"},
		{"collector", "is not a URL"},
	}.check(t, "OTEL_EXPORTER_OTLP_ENDPOINT", nil)
	refusals{{"jaeger", "is not otlp, console, none"}}.check(t, "OTEL_TRACES_EXPORTER", nil)
	refusals{{"1.5", "a number from 0 to 1"}}.check(t, "OTEL_TRACES_SAMPLER_ARG", map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "OTEL_TRACES_SAMPLER": "traceidratio",
	})
}

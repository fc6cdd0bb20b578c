// Package tracing sends the traces of the program to a collector, as the standard
// variables of OpenTelemetry say. Without them it does nothing.
package tracing

import (
	"context"
	"fmt"
	"time"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// flushTime bounds the sending of the last spans at the end of the program.
const flushTime = 2 * time.Second

// Start returns where spans begin. Nothing is sent yet, and nobody is waited for. The
// function returned sends the last spans, for two seconds at most.
//
// Trouble with the collector is no error. It goes to the log, once a minute at most.
func Start(ctx context.Context, c Config, version string, log zerolog.Logger) (trace.TracerProvider, func(), error) {
	if !c.Enabled() {
		return noop.NewTracerProvider(), func() {}, nil
	}
	r := newReporter(log, time.Now)
	exporter, err := c.newExporter(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("exporter of traces: %w", err)
	}
	res, err := newResource(ctx, version)
	if err != nil { // it is the poorer by what could not be found out
		otel.Handle(err)
	}
	p := sdktrace.NewTracerProvider(
		sdktrace.WithResource(res),
		sdktrace.WithSampler(recordAll{c.sampler}),
		sdktrace.WithSpanProcessor(keepFailures(sdktrace.NewBatchSpanProcessor(exporter))),
	)
	return p, func() { r.stop(context.WithoutCancel(ctx), p) }, nil
}

// stop sends the last spans.
func (r *reporter) stop(ctx context.Context, p *sdktrace.TracerProvider) {
	ctx, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	if err := p.Shutdown(ctx); err != nil {
		r.Handle(err)
	}
}

// newExporter returns an exporter. It reads more variables by itself: endpoint, headers,
// time-out, compression, certificates.
func (c Config) newExporter(ctx context.Context) (sdktrace.SpanExporter, error) {
	switch {
	case c.exporter == exporterConsole:
		return stdouttrace.New()
	case c.protocol == protocolGRPC:
		return otlptracegrpc.New(ctx)
	}
	return otlptracehttp.New(ctx)
}

// newResource says which process the spans are of. It asks neither a network nor a
// metadata service. The environment has the last word.
func newResource(ctx context.Context, version string) (*resource.Resource, error) {
	return resource.New(ctx,
		resource.WithAttributes(semconv.ServiceName("imagemanager"), semconv.ServiceVersion(version)),
		resource.WithTelemetrySDK(),
		resource.WithHost(),
		resource.WithProcessPID(),
		resource.WithFromEnv(),
	)
}

// Package span begins and ends the spans of a trace. It knows the interface of
// OpenTelemetry alone; package tracing decides where spans go.
package span

import (
	"context"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// Scope names the program as the source of its spans.
const Scope = "imagemanager.internal"

// Start begins a span below the one in ctx. If that one is not recorded, neither is this.
// The returned function ends it: with the error that it came to, or nil.
func Start(ctx context.Context, name string) (context.Context, func(error)) {
	ctx, s := trace.SpanFromContext(ctx).TracerProvider().Tracer(Scope).Start(ctx, name)
	return ctx, func(err error) { End(s, err) }
}

// End ends a span.
func End(s trace.Span, err error) {
	if err != nil {
		Fail(s, err.Error())
	}
	s.End()
}

// Fail marks a span as failed, and says why.
func Fail(s trace.Span, text string) { s.SetStatus(codes.Error, valid(text)) }

// String returns an attribute.
func String(key, value string) attribute.KeyValue { return attribute.String(key, valid(value)) }

// valid makes text valid UTF-8. Names in archives and keys of objects need not be, and
// with one such string the exporter loses the spans of many images.
func valid(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

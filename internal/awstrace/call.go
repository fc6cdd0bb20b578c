package awstrace

import (
	"context"
	"time"

	"github.com/aws/smithy-go/tracing"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"imagemanager.internal/internal/span"
)

// callKey is the key of the call that a context belongs to.
type callKey struct{}

// call is one call. It becomes a span at its end, if at all. Only its own goroutine uses
// it.
type call struct {
	none

	tracer trace.Tracer
	parent trace.Span
	sum    *sum // nil for a call that is not summed
	name   string
	began  time.Time

	attempts   []time.Time // when each began
	failed     bool
	reason     string
	attributes []attribute.KeyValue
}

// Name implements tracing.Span.
func (c *call) Name() string { return c.name }

// SetStatus implements tracing.Span.
func (c *call) SetStatus(s tracing.SpanStatus) { c.failed = s == tracing.SpanStatusError }

// SetProperty implements tracing.Span. The SDK gives the service, the operation, and what
// is known of a failure.
func (c *call) SetProperty(k, v any) {
	name, isName := k.(string)
	text, isText := v.(string)
	switch {
	case !isName || !isText:
	case name == "exception.message":
		c.reason = text
	default:
		c.attributes = append(c.attributes, span.String(name, text))
	}
}

// End implements tracing.Span.
func (c *call) End() {
	took := time.Since(c.began)
	if c.sum != nil && c.sum.add(took, len(c.attempts)) > shown && !c.failed && took < slow {
		return
	}
	_, s := c.tracer.Start(trace.ContextWithSpan(context.Background(), c.parent), c.name,
		trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(c.began), trace.WithAttributes(c.attributes...))
	for i, at := range c.attempts {
		if i > 0 {
			s.AddEvent("retry", trace.WithTimestamp(at), trace.WithAttributes(attribute.Int("attempt", i+1)))
		}
	}
	if c.failed {
		span.Fail(s, c.reason)
	}
	s.End()
}

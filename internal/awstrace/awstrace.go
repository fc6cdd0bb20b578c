// Package awstrace makes the spans of calls of AWS clients, one a call.
//
// The SDK has ten a call: for the building of the request, its signing, each attempt, and
// so on. With a thousand calls an image, they would bury what matters.
package awstrace

import (
	"context"
	"strings"
	"time"

	"github.com/aws/smithy-go/tracing"
	"go.opentelemetry.io/otel/trace"

	"imagemanager.internal/internal/span"
)

const (
	attempt = "Attempt" // the SDK's span of one request
	// slow is the time from which a call that is summed has a span of its own.
	slow = time.Second
	// shown is how many calls that are summed have spans of their own nevertheless: a
	// small object is fetched in one or two.
	shown = 4
)

// Provider makes the spans. It is a client's TracerProvider.
type Provider struct{ tracer trace.Tracer }

// New returns a Provider of spans that go where those of p go.
func New(p trace.TracerProvider) Provider { return Provider{p.Tracer(span.Scope)} }

// Tracer implements tracing.TracerProvider.
func (p Provider) Tracer(string, ...tracing.TracerOption) tracing.Tracer { return p }

// StartSpan implements tracing.Tracer. Of a call outside of any recorded span nobody
// would know what it was for: it has none.
func (p Provider) StartSpan(ctx context.Context, name string, opts ...tracing.SpanOption,
) (context.Context, tracing.Span) {
	if name == attempt {
		if c, inside := ctx.Value(callKey{}).(*call); inside {
			c.attempts = append(c.attempts, time.Now())
		}
		return ctx, none{}
	}
	parent := trace.SpanFromContext(ctx)
	if !strings.Contains(name, ".") || !parent.IsRecording() { // a call is service.operation
		return ctx, none{}
	}
	c := &call{tracer: p.tracer, parent: parent, name: name, began: time.Now()}
	c.sum, _ = ctx.Value(sumKey{}).(*sum)
	var o tracing.SpanOptions
	for _, opt := range opts {
		opt(&o)
	}
	for k, v := range o.Properties.Values() {
		c.SetProperty(k, v)
	}
	return context.WithValue(ctx, callKey{}, c), c
}

// none is a span that is not made.
type none struct{}

// Name implements tracing.Span.
func (none) Name() string { return "" }

// Context implements tracing.Span.
func (none) Context() tracing.SpanContext { return tracing.SpanContext{} }

// AddEvent implements tracing.Span.
func (none) AddEvent(string, ...tracing.EventOption) {}

// SetStatus implements tracing.Span.
func (none) SetStatus(tracing.SpanStatus) {}

// SetProperty implements tracing.Span.
func (none) SetProperty(any, any) {}

// End implements tracing.Span.
func (none) End() {}

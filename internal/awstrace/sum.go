package awstrace

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// sumKey is the key of the sum in a context.
type sumKey struct{}

// sum counts the calls of a work that makes many.
type sum struct {
	mu       sync.Mutex
	requests int
	retries  int
	slowest  time.Duration
}

// Summed has the calls with the context returned counted in attributes of its span, which
// the function returned sets. Only the first few, slow ones and failed ones have spans of
// their own.
func Summed(ctx context.Context) (context.Context, func()) {
	s := trace.SpanFromContext(ctx)
	if !s.IsRecording() {
		return ctx, func() {}
	}
	n := &sum{}
	return context.WithValue(ctx, sumKey{}, n), func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		s.SetAttributes(
			attribute.Int("aws.requests", n.requests),
			attribute.Int("aws.retries", n.retries),
			attribute.Int64("aws.slowest_ms", n.slowest.Milliseconds()),
		)
	}
}

// add counts a call and returns how many there were so far.
func (n *sum) add(took time.Duration, attempts int) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.requests++
	n.retries += max(attempts-1, 0)
	n.slowest = max(n.slowest, took)
	return n.requests
}

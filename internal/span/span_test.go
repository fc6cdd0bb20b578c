package span

import (
	"context"
	"errors"
	"testing"

	"imagemanager.internal/test/otlp"
)

// A span is below the one in the context, and ends with its error. Below nothing, nothing
// is recorded.
func TestStart(t *testing.T) {
	var c otlp.Collector
	ctx, whole := c.Provider().Tracer("test").Start(context.Background(), "whole")
	inner, end := Start(ctx, "good")
	_, endInner := Start(inner, "bad")
	endInner(errors.New("name \xff"))
	end(nil)
	whole.End()
	if got, want := c.Tree(whole.SpanContext().TraceID().String()), "whole\n  good\n    bad FAILED\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if got := c.Spans("bad")[0].Error; got != "name \uFFFD" {
		t.Errorf("error %q", got)
	}
	_, end = Start(t.Context(), "alone")
	end(nil)
	if n := len(c.Spans("")); n != 3 {
		t.Errorf("%d spans", n)
	}
}

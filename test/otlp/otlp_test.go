package otlp

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

func TestTree(t *testing.T) {
	var c Collector
	tracer := c.Provider().Tracer("test")
	ctx, whole := tracer.Start(t.Context(), "whole",
		trace.WithAttributes(attribute.Int("n", 1), attribute.Bool("b", true)))
	_, first := tracer.Start(ctx, "first")
	_, second := tracer.Start(ctx, "second")
	second.AddEvent("event")
	second.SetStatus(codes.Error, "why")
	second.End()
	first.End()
	whole.End()
	_, other := tracer.Start(t.Context(), "another trace")
	other.End()
	want := "whole n=1 b=true\n  first\n  second +event FAILED\n"
	if got := c.Tree(whole.SpanContext().TraceID().String(), "n", "b", "absent"); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if s := c.Spans("second"); len(s) != 1 || s[0].Error != "why" || s[0].Parent != c.Spans("whole")[0].ID {
		t.Errorf("%+v", s)
	}
}

func TestNotOTLP(t *testing.T) {
	answer := httptest.NewRecorder()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader("{"))
	new(Collector).ServeHTTP(answer, req)
	if answer.Code != http.StatusBadRequest {
		t.Errorf("status %d", answer.Code)
	}
}

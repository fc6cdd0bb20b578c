package pipeline

import (
	"context"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"imagemanager.internal/internal/queue"
	"imagemanager.internal/internal/span"
)

// A poll and the settling of a message are each a trace of their own: both are about
// several images. Links lead to the jobs of these.

// traceReceived makes the span of a poll that brought messages.
func (ms *messages) traceReceived(ctx context.Context, began time.Time, msgs []*queue.Message) {
	if len(msgs) == 0 {
		return
	}
	_, s := ms.tracer.Start(ctx, "receive images", trace.WithNewRoot(), trace.WithTimestamp(began),
		trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
			semconv.MessagingSystemAWSSQS, semconv.MessagingOperationTypeReceive,
			semconv.MessagingOperationName("receive"), semconv.MessagingBatchMessageCount(len(msgs)),
		))
	s.End()
	ms.polled = s.SpanContext()
}

// link ties a job to the poll and to the sender of its message. jobs.mu is held.
func (d *delivery) link(job trace.Span) {
	id := []attribute.KeyValue{semconv.MessagingMessageID(d.msg.ID)}
	job.SetAttributes(id...)
	for _, sc := range []trace.SpanContext{d.polled, sender(d.msg.TraceHeader)} {
		if sc.IsValid() {
			job.AddLink(trace.Link{SpanContext: sc, Attributes: id})
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.jobs = append(d.jobs, trace.Link{SpanContext: job.SpanContext()})
}

// traceSettle begins the span of the end of a message. The function returned ends it.
func (ms *messages) traceSettle(ctx context.Context, d *delivery) (context.Context, func(result string, err error)) {
	d.mu.Lock()
	links := d.jobs
	d.mu.Unlock()
	ctx, s := ms.tracer.Start(ctx, "settle images", trace.WithNewRoot(), trace.WithLinks(links...),
		trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
			semconv.MessagingSystemAWSSQS, semconv.MessagingOperationTypeSettle, semconv.MessagingMessageID(d.msg.ID),
		))
	return ctx, func(result string, err error) {
		name := "ack"
		if result == "returned" {
			name = "nack"
		}
		s.SetAttributes(semconv.MessagingOperationName(name), span.String("message.outcome", result))
		span.End(s, err)
	}
}

// inJob returns a context with the span of the message's first job. Its trace explains
// the time that the message took.
func (d *delivery) inJob(ctx context.Context) context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.jobs) == 0 {
		return ctx
	}
	return trace.ContextWithSpanContext(ctx, d.jobs[0].SpanContext)
}

// sender reads an AWSTraceHeader, such as
// Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1. It returns
// an invalid span if there is none in it.
func sender(header string) trace.SpanContext {
	var c trace.SpanContextConfig
	for field := range strings.SplitSeq(header, ";") {
		switch key, value, _ := strings.Cut(strings.TrimSpace(field), "="); key {
		case "Root":
			digits := strings.ReplaceAll(strings.TrimPrefix(value, "1-"), "-", "")
			c.TraceID, _ = trace.TraceIDFromHex(digits) // zero for anything else
		case "Parent":
			c.SpanID, _ = trace.SpanIDFromHex(value)
		case "Sampled":
			c.TraceFlags = c.TraceFlags.WithSampled(value == "1")
		}
	}
	c.Remote = true
	return trace.NewSpanContext(c)
}

package pipeline

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/otel/trace"

	"imagemanager.internal/internal/metric"
	"imagemanager.internal/internal/queue"
	"imagemanager.internal/internal/store"
)

// observe makes the pipeline count in a registry that the test can read.
func observe(p *Pipeline) *prometheus.Registry {
	reg := prometheus.NewRegistry()
	q := newQueueMetrics(metric.Factory(reg))
	q.callFailed, q.atLimit = p.metrics.queue.callFailed, p.metrics.queue.atLimit
	p.metrics.queue = q
	return reg
}

// series reads a registry: the values of counters and gauges, and the counts of
// histograms, by name and values of the labels. Zeros are left out.
func series(t *testing.T, reg prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			key := f.GetName()
			for _, label := range m.GetLabel() {
				key += " " + label.GetValue()
			}
			if v := sampleValue(m); v != 0 {
				all[key] = v
			}
		}
	}
	return all
}

func sampleValue(m *dto.Metric) float64 {
	if h := m.GetHistogram(); h != nil {
		return float64(h.GetSampleCount())
	}
	return m.GetCounter().GetValue() + m.GetGauge().GetValue()
}

// sameSeries compares the series of the queue that are not 0.
func sameSeries(t *testing.T, reg prometheus.Gatherer, want map[string]float64) {
	t.Helper()
	full := map[string]float64{}
	for name, n := range want {
		full["imagemanager_queue_"+name] = n
	}
	if got := series(t, reg); !maps.Equal(got, full) {
		t.Errorf("%v, want %v", got, full)
	}
}

// A message whose image fails once is received twice, returned, and then deleted. Only
// the first receive tells how long it lay in the queue.
func TestMessagesAreMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, q := newPipeline(t), newPatientQueue(notified("images/a.tar"))
		reg, attempts := observe(p), 0
		q.sent = time.Now()
		emptied := work(t, p, q, func(_ string, st store.Stage) error {
			if st != store.StageDownload {
				return nil
			}
			attempts++
			wait(t.Context(), 40*time.Second) // the lease is extended after 30 s
			if attempts == 1 {
				return errors.New("it fails")
			}
			return nil
		})
		if !emptied {
			t.Fatal("the message is left")
		}
		got := series(t, reg)
		delete(got, "imagemanager_queue_receives_total empty") // depends on the backoff, which is random
		for name, want := range map[string]float64{
			"receives_total messages": 2, "messages_received_total": 2,
			"message_lag_seconds": 1, "message_receives": 2,
			"messages_settled_total returned": 1, "message_duration_seconds returned": 1,
			"messages_settled_total deleted": 1, "message_duration_seconds deleted": 1,
			"extensions_total ok": 2, "heartbeat_margin_seconds": 2,
			"messages_settled_total unsettled": 0, "extensions_total failed": 0, "messages_held": 0,
		} {
			if n := got["imagemanager_queue_"+name]; n != want {
				t.Errorf("%s: %g, want %g", name, n, want)
			}
		}
	})
}

func TestPollsAreCounted(t *testing.T) {
	sent := time.Date(2026, 11, 1, 10, 0, 0, 0, time.UTC)
	message := func(receives int, sent time.Time) *queue.Message {
		return &queue.Message{ReceiveCount: receives, SentAt: sent, ReceivedAt: sent.Add(time.Minute)}
	}
	for _, tc := range []struct {
		name string
		msgs []*queue.Message
		err  error
		want map[string]float64
	}{
		{"empty", nil, nil, map[string]float64{"receives_total empty": 1}},
		{
			"failed", nil, fmt.Errorf("receive: %w", &net.OpError{Op: "dial", Err: errors.New("refused")}),
			map[string]float64{"receives_total failed": 1, "receive_failures_total network": 1},
		},
		{
			"messages",
			[]*queue.Message{message(1, sent), message(2, sent), message(1, time.Time{})},
			nil,
			map[string]float64{
				"receives_total messages": 1, "messages_received_total": 3, "message_receives": 3,
				"message_lag_seconds": 1,
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPipeline(t)
			reg := observe(p)
			p.metrics.Queue().Polled(tc.msgs, tc.err)
			sameSeries(t, reg, tc.want)
		})
	}
}

// A message from the future (the queue's clock is ahead) has no lag.
func TestLagIsNotNegative(t *testing.T) {
	p := newPipeline(t)
	reg := observe(p)
	now := time.Now()
	p.metrics.Queue().Polled([]*queue.Message{{ReceiveCount: 1, SentAt: now.Add(time.Hour), ReceivedAt: now}}, nil)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "imagemanager_queue_message_lag_seconds" {
			if sum := f.GetMetric()[0].GetHistogram().GetSampleSum(); sum != 0 {
				t.Errorf("a lag of %g s", sum)
			}
		}
	}
}

// What failed and is tried again counts by entries; a failed extension also as such.
func TestFailedCallsAreCounted(t *testing.T) {
	p := newPipeline(t)
	reg := observe(p)
	o := p.metrics.Queue()
	o.Failed("extend", 3, errors.New("refused"))
	o.Failed("delete", 2, errors.New("refused"))
	sameSeries(t, reg, map[string]float64{
		"call_retries_total extend": 3, "extensions_total failed": 3, "call_retries_total delete": 2,
	})
}

// Whatever is ignored, its counter was there before: with 0.
func TestIgnoredNotifications(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, ours := newPipeline(t), notified("images/a.tar")
		reg := observe(p)
		before := testutil.CollectAndCount(p.metrics.queue.ignored)
		q := newPatientQueue(ours, notified("images/"), notified("other/a.tar"), "{", `{"Records":[]}`,
			strings.Replace(ours, `"name":"b"`, `"name":"c"`, 1),
			strings.Replace(ours, "Created:Put", "Removed:Delete", 1),
			strings.Replace(ours, "[{", `[{"eventSource":"aws:ses",`, 1), `{"Event":"s3:TestEvent","Bucket":"b"}`,
			`{"Type":"SubscriptionConfirmation","TopicArn":"t"}`)
		if !work(t, p, q, func(string, store.Stage) error { return nil }) {
			t.Fatal("messages are left")
		}
		counted := 0
		for name := range series(t, reg) {
			if strings.Contains(name, "notifications_ignored_total") {
				counted++
			}
		}
		if counted != 9 || before != 9 {
			t.Errorf("%d series before, %d have counted, of 9", before, counted)
		}
	})
}

// A message is held by one permit of as many as there are workers.
func TestPermitsAreShown(t *testing.T) {
	reg := prometheus.NewRegistry()
	newMessages(testConfig(), Deps{Metrics: NewMetrics(reg, newPipeline(t).store)}, nil, nil)
	if n := series(t, reg)["imagemanager_queue_permits"]; n != 8 {
		t.Errorf("%g permits for 5, 2 and 1 workers", n)
	}
}

// The trace of a message is the exemplar of its time.
func TestMessageTraceIsExemplar(t *testing.T) {
	p := newPipeline(t)
	ctx := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled,
	}))
	p.metrics.queue.ended(ctx, "deleted", time.Second)
	var m dto.Metric
	if err := p.metrics.queue.duration.WithLabelValues("deleted").(prometheus.Histogram).Write(&m); err != nil {
		t.Fatal(err)
	}
	bucket := m.GetHistogram().GetBucket()[1] // up to 5 s
	if label := bucket.GetExemplar().GetLabel(); len(label) != 1 || label[0].GetName() != "trace_id" {
		t.Errorf("the exemplar is %v", label)
	}
}

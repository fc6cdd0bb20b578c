package pipeline

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"imagemanager.internal/internal/awserr"
	"imagemanager.internal/internal/metric"
	"imagemanager.internal/internal/queue"
)

// queueMetrics count the messages, and the calls to the queue.
type queueMetrics struct {
	depth    *prometheus.GaugeVec
	receives *prometheus.CounterVec
	failures *prometheus.CounterVec // of receives
	permits  prometheus.Gauge
	held     prometheus.Gauge

	received     prometheus.Counter
	ignored      *prometheus.CounterVec
	lag          prometheus.Histogram
	receiveCount prometheus.Histogram
	settled      *prometheus.CounterVec
	duration     *prometheus.HistogramVec
	lost         prometheus.Counter
	capped       prometheus.Counter

	extensions *prometheus.CounterVec
	margin     prometheus.Histogram
	retries    *prometheus.CounterVec // of entries of other calls

	callFailed func(operation string, err error) // set by New, before the queue is called
	atLimit    func(id string, end time.Time)    // so is this
}

func newQueueMetrics(f promauto.Factory) queueMetrics {
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	counters := func(name, help, label string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := queueMetrics{
		depth: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "queue_depth_messages", Help: "Messages of the queue and of the dead-letter queue, estimated by SQS.",
		}, []string{"queue", "state"}),
		receives: counters("queue_receives_total", "Polls: with messages, empty, or failed.", "result"),
		failures: counters("queue_receive_failures_total", "Failed polls.", "class"),
		permits:  gauge("queue_permits", "Messages that may be held at once: one for each worker."),
		held:     gauge("queue_messages_held", "Messages held: their images are worked on."),
		received: counter("queue_messages_received_total", "Messages received."),
		ignored: f.NewCounterVec(prometheus.CounterOpts{
			Name: "notifications_ignored_total", Help: "Notifications that name no image of ours.",
		}, []string{"reason"}),
		lag: f.NewHistogram(metric.Histogram("queue_message_lag_seconds",
			"Time from a message's sending to its first receive.",
			.1, 1, 5, 15, 60, 300, 900, 3600, 21600, 345600)),
		receiveCount: f.NewHistogram(metric.Histogram("queue_message_receives",
			"How often a message has been received, each time it is.", 1, 3, 10, 100)),
		settled: counters("queue_messages_settled_total", "Messages by what became of them: deleted, "+
			"returned to the queue, dead-lettered, or unsettled because the call failed.", "outcome"),
		duration: f.NewHistogramVec(metric.Histogram("queue_message_duration_seconds",
			"Time from a message's receive until it is settled.",
			.5, 5, 60, 600, 7200), []string{"outcome"}),
		lost:   counter("queue_messages_lost_total", "Messages whose lease ended before they were settled."),
		capped: counter("queue_messages_capped_total", "Messages held until SQS's limit of 12 hours."),
		extensions: counters("queue_extensions_total",
			"Extensions of a message's lease: granted, or failed and tried again.", "result"),
		margin: f.NewHistogram(metric.Histogram("queue_heartbeat_margin_seconds",
			"What was left of a message's lease when it was extended.",
			0, 1, 5, 10, 15, 20, 25, 30, 60, 3600)),
		retries: counters("queue_call_retries_total", "Entries of queue calls that failed and were tried again.",
			"operation"),
	}
	m.zero()
	return m
}

// zero makes every series with known labels beforehand, as does Metrics.zero.
func (m *queueMetrics) zero() {
	for _, result := range []string{"messages", "empty", "failed"} {
		m.receives.WithLabelValues(result)
	}
	for _, class := range awserr.Classes() {
		m.failures.WithLabelValues(string(class))
	}
	for _, outcome := range []string{"deleted", "returned", "dead_lettered", "unsettled"} {
		m.settled.WithLabelValues(outcome)
		m.duration.WithLabelValues(outcome)
	}
	for _, reason := range append(queue.Reasons(), reasonMalformed, reasonForeignBucket, reasonForeignPrefix,
		reasonDirectory) {
		m.ignored.WithLabelValues(reason)
	}
	for _, result := range []string{"ok", "failed"} {
		m.extensions.WithLabelValues(result)
	}
	for _, operation := range []string{"delete", "release", "extend", "dead-letter"} {
		m.retries.WithLabelValues(operation)
	}
}

// Queue returns what the queue client reports to.
func (m *Metrics) Queue() queue.Observer {
	q := &m.queue
	return queue.Observer{
		Polled: q.polled,
		Extended: func(_ string, margin time.Duration) {
			q.extensions.WithLabelValues("ok").Inc()
			q.margin.Observe(margin.Seconds())
		},
		Capped: func(id string, end time.Time) {
			q.capped.Inc()
			q.atLimit(id, end)
		},
		Failed: q.failed,
	}
}

// polled counts a poll and its messages.
func (m *queueMetrics) polled(msgs []*queue.Message, err error) {
	switch {
	case err != nil:
		m.receives.WithLabelValues("failed").Inc()
		m.failures.WithLabelValues(string(awserr.Classify(err))).Inc()
	case len(msgs) == 0:
		m.receives.WithLabelValues("empty").Inc()
	default:
		m.receives.WithLabelValues("messages").Inc()
	}
	m.received.Add(float64(len(msgs)))
	for _, msg := range msgs {
		m.receiveCount.Observe(float64(msg.ReceiveCount))
		// A later receive would measure our own retries. The two clocks may differ.
		if msg.ReceiveCount == 1 && !msg.SentAt.IsZero() {
			m.lag.Observe(max(0, msg.ReceivedAt.Sub(msg.SentAt).Seconds()))
		}
	}
}

// failed counts the entries of a call that are tried again.
func (m *queueMetrics) failed(operation string, entries int, err error) {
	m.retries.WithLabelValues(operation).Add(float64(entries))
	if operation == "extend" {
		m.extensions.WithLabelValues("failed").Add(float64(entries))
	}
	m.callFailed(operation, err)
}

// ended counts a settled message.
func (m *queueMetrics) ended(ctx context.Context, outcome string, took time.Duration) {
	m.settled.WithLabelValues(outcome).Inc()
	metric.Observe(ctx, m.duration.WithLabelValues(outcome), took.Seconds())
}

package pipeline

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"imagemanager.internal/internal/awserr"
	"imagemanager.internal/internal/metric"
	"imagemanager.internal/internal/queue"
)

// queueMetrics count the messages, and the calls to the queue.
type queueMetrics struct {
	received prometheus.Counter
	settled  *prometheus.CounterVec
	lost     prometheus.Counter
	capped   prometheus.Counter
	held     prometheus.Gauge
	failures *prometheus.CounterVec // of polls
	retries  *prometheus.CounterVec // of other calls
	margin   prometheus.Histogram

	callFailed func(operation string, err error) // set by New, before the queue is called
	atLimit    func(id string, end time.Time)    // so is this
}

func newQueueMetrics(f promauto.Factory) queueMetrics {
	m := queueMetrics{
		received: f.NewCounter(prometheus.CounterOpts{
			Name: "queue_messages_received_total", Help: "Messages received.",
		}),
		settled: f.NewCounterVec(prometheus.CounterOpts{
			Name: "queue_messages_settled_total",
			Help: "Messages by what became of them: deleted, returned to the queue, dead-lettered, " +
				"or unsettled because the call failed.",
		}, []string{"outcome"}),
		lost: f.NewCounter(prometheus.CounterOpts{
			Name: "queue_messages_lost_total", Help: "Messages whose lease ended before they were settled.",
		}),
		capped: f.NewCounter(prometheus.CounterOpts{
			Name: "queue_messages_capped_total", Help: "Messages held until SQS's limit of 12 hours.",
		}),
		held: f.NewGauge(prometheus.GaugeOpts{
			Name: "queue_messages_held", Help: "Messages held or being received.",
		}),
		failures: f.NewCounterVec(prometheus.CounterOpts{
			Name: "queue_receive_failures_total", Help: "Failed polls of the queue.",
		}, []string{"class"}),
		retries: f.NewCounterVec(prometheus.CounterOpts{
			Name: "queue_call_retries_total", Help: "Entries of queue calls that failed and were tried again.",
		}, []string{"operation"}),
		margin: f.NewHistogram(metric.Histogram("queue_heartbeat_margin_seconds",
			"What was left of a message's lease when it was extended.",
			0, 1, 2, 2.5, 5, 10, 15, 20, 25, 30, 60, 300, 3600)),
	}
	m.zero()
	return m
}

// zero makes every series with known labels beforehand, as does Metrics.zero.
func (m *queueMetrics) zero() {
	for _, outcome := range []string{"deleted", "returned", "dead_lettered", "unsettled"} {
		m.settled.WithLabelValues(outcome)
	}
	for _, class := range awserr.Classes() {
		m.failures.WithLabelValues(string(class))
	}
	for _, operation := range []string{"delete", "release", "extend", "dead-letter"} {
		m.retries.WithLabelValues(operation)
	}
}

func (m *queueMetrics) pollFailed(class awserr.Class) {
	m.failures.WithLabelValues(string(class)).Inc()
}

// Queue returns what the queue client reports to.
func (m *Metrics) Queue() queue.Observer {
	q := &m.queue
	return queue.Observer{
		Extended: func(_ string, margin time.Duration) { q.margin.Observe(margin.Seconds()) },
		Capped: func(id string, end time.Time) {
			q.capped.Inc()
			q.atLimit(id, end)
		},
		Failed: func(operation string, entries int, err error) {
			q.retries.WithLabelValues(operation).Add(float64(entries))
			q.callFailed(operation, err)
		},
	}
}

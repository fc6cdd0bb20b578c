package pipeline

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"imagemanager.internal/internal/awserr"
	"imagemanager.internal/internal/queue"
	"imagemanager.internal/internal/store"
)

const namespace = "imagemanager"

// Metrics counts what the pipeline does. Labels are bounded: stages, verdicts, reason
// codes; never keys.
type Metrics struct {
	workers  *prometheus.GaugeVec
	duration *prometheus.HistogramVec
	failures *prometheus.CounterVec
	received prometheus.Counter
	settled  *prometheus.CounterVec
	lost     prometheus.Counter
	capped   prometheus.Counter
	held     prometheus.Gauge
	ignores  *prometheus.CounterVec
	receive  *prometheus.CounterVec
	settle   *prometheus.CounterVec
	margin   prometheus.Histogram
	attacks  *prometheus.CounterVec
	pool     poolMetrics
	pending  *prometheus.GaugeVec
	kept     kept

	callFailed func(operation string, err error) // set by New, before the queue is called
	atLimit    func(id string, end time.Time)    // so is this
}

// NewMetrics registers the pipeline's metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, labels)
	}
	one := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help})
	}
	m := &Metrics{
		workers: gauge("stage_workers",
			"Workers of a stage: idle, busy with an image, or blocked because the next stage has no room.",
			"stage", "state"),
		failures: counter("failures_total", "Failed attempts by verdict and reason.", "stage", "verdict", "reason"),
		received: one("queue_messages_received_total", "Messages received."),
		settled: counter("queue_messages_settled_total", "Messages by what became of them: "+
			"deleted, returned to the queue, dead-lettered, or unsettled because the call failed.", "outcome"),
		lost:   one("queue_messages_lost_total", "Messages whose lease ended before they were settled."),
		capped: one("queue_messages_capped_total", "Messages held until SQS's limit of 12 hours."),
		held: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: namespace, Name: "queue_messages_held", Help: "Messages held or being received.",
		}),
		ignores: counter("notifications_ignored_total", "Notifications that name no image of ours.", "reason"),
		receive: counter("receive_errors_total", "Failed polls of the queue.", "class"),
		settle: counter("queue_retries_total", "Entries of queue calls that failed and were tried again.",
			"operation"),
		margin: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Name: "heartbeat_margin_seconds",
			Help:    "What was left of a message's lease when it was extended.",
			Buckets: []float64{0, 1, 2.5, 5, 10, 20, 30, 60, 300, 3600},
		}),
		attacks: counter("security_violations_total", "Archives refused as attacks.", "rule"),
		pending: gauge("pending_images",
			"Pending images without a job: waiting for their next attempt, or found in nobody's hands.", "held_by"),
		pool: newPoolMetrics(reg),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Name: "stage_duration_seconds", Help: "Time of a stage that was done.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800},
		}, []string{"stage"}),
	}
	reg.MustRegister(m.workers, m.duration, m.failures, m.received, m.settled, m.lost, m.capped, m.held, m.ignores,
		m.receive, m.settle, m.margin, m.attacks, m.pending)
	m.kept = newKept(reg)
	m.zero()
	return m
}

// workerState is what a worker of a stage does.
type workerState string

const (
	idle    workerState = "idle"    // waits for a job
	busy    workerState = "busy"    // works on one
	blocked workerState = "blocked" // has one that the next stage has no room for
	gone    workerState = ""        // has ended
)

// worker is one worker in the gauge of its stage. It belongs to one goroutine.
type worker struct {
	stage store.Stage
	state workerState
	gauge *prometheus.GaugeVec
}

// worker adds an idle worker to a stage.
func (m *Metrics) worker(st store.Stage) *worker {
	w := &worker{stage: st, gauge: m.workers}
	w.is(idle)
	return w
}

// is moves the worker to another state. At any moment the states of a stage's workers add
// up to their number, but for the one that moves.
func (w *worker) is(state workerState) {
	if state == w.state {
		return
	}
	if w.state != gone {
		w.gauge.WithLabelValues(string(w.stage), string(w.state)).Dec()
	}
	if w.state = state; state != gone {
		w.gauge.WithLabelValues(string(w.stage), string(state)).Inc()
	}
}

func (m *Metrics) took(st store.Stage, d time.Duration) {
	m.duration.WithLabelValues(string(st)).Observe(d.Seconds())
}

func (m *Metrics) failure(st store.Stage, j judgement) {
	m.failures.WithLabelValues(string(st), string(j.verdict), j.class).Inc()
}

func (m *Metrics) violation(rule string) { m.attacks.WithLabelValues(rule).Inc() }
func (m *Metrics) ignored(reason string) { m.ignores.WithLabelValues(reason).Inc() }

func (m *Metrics) pollFailed(class awserr.Class) { m.receive.WithLabelValues(string(class)).Inc() }

func (m *Metrics) waiting(timer, nobody int) {
	m.pending.WithLabelValues("timer").Set(float64(timer))
	m.pending.WithLabelValues("nobody").Set(float64(nobody))
}

// Queue returns what the queue client reports to.
func (m *Metrics) Queue() queue.Observer {
	return queue.Observer{
		Extended: func(_ string, margin time.Duration) { m.margin.Observe(margin.Seconds()) },
		Capped: func(id string, end time.Time) {
			m.capped.Inc()
			m.atLimit(id, end)
		},
		Failed: func(operation string, entries int, err error) {
			m.settle.WithLabelValues(operation).Add(float64(entries))
			m.callFailed(operation, err)
		},
	}
}

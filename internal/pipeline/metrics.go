package pipeline

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"imagemanager.internal/internal/metric"
	"imagemanager.internal/internal/store"
)

const namespace = "imagemanager"

// Metrics counts what the pipeline does. Labels are bounded: stages, verdicts, reason
// codes; never keys.
type Metrics struct {
	queue    queueMetrics
	workers  *prometheus.GaugeVec
	duration *prometheus.HistogramVec
	failures *prometheus.CounterVec
	attacks  *prometheus.CounterVec
	pool     poolMetrics
	pending  *prometheus.GaugeVec
	kept     kept
}

// NewMetrics registers the pipeline's metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, labels)
	}
	m := &Metrics{
		queue: newQueueMetrics(metric.Factory(reg)),
		workers: gauge("stage_workers",
			"Workers of a stage: idle, busy with an image, or blocked because the next stage has no room.",
			"stage", "state"),
		failures: counter("failures_total", "Failed attempts by verdict and reason.", "stage", "verdict", "reason"),
		attacks:  counter("security_violations_total", "Archives refused as attacks.", "rule"),
		pending: gauge("pending_images",
			"Pending images without a job: waiting for their next attempt, or found in nobody's hands.", "held_by"),
		pool: newPoolMetrics(reg),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Name: "stage_duration_seconds", Help: "Time of a stage that was done.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800},
		}, []string{"stage"}),
	}
	reg.MustRegister(m.workers, m.duration, m.failures, m.attacks, m.pending)
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

func (m *Metrics) waiting(timer, nobody int) {
	m.pending.WithLabelValues("timer").Set(float64(timer))
	m.pending.WithLabelValues("nobody").Set(float64(nobody))
}

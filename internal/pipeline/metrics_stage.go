package pipeline

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"imagemanager.internal/internal/metric"
	"imagemanager.internal/internal/store"
)

// stageMetrics show where jobs are, and what became of them. Alone of all of them,
// failures has many series: see possible.
type stageMetrics struct {
	capacity *prometheus.GaugeVec
	workers  *prometheus.GaugeVec
	duration *prometheus.HistogramVec
	wait     *prometheus.HistogramVec
	failures *prometheus.CounterVec
	jobs     *prometheus.CounterVec
}

func newStageMetrics(f promauto.Factory) stageMetrics {
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	gauges := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return f.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	}
	m := stageMetrics{
		capacity: gauges("stage_capacity", "Workers that a stage has.", "stage"),
		workers: gauges("stage_workers",
			"Workers of a stage: idle, busy with an image, or blocked because the next stage has no room.",
			"stage", "state"),
		// Every bucket is a series of its own, so there are few. Those of the native
		// histogram are fine, and cost nothing.
		duration: f.NewHistogramVec(metric.Histogram("stage_duration_seconds",
			"Time of an attempt at a stage, without the roll-back.",
			.01, .05, .25, 1, 5, 30, 300), []string{"stage", "outcome"}),
		wait: f.NewHistogramVec(metric.Histogram("stage_wait_seconds",
			"Time that a job of a stage waited until the next stage had room.", 1, 60),
			[]string{"stage"}),
		failures: counters("stage_failures_total", "Failed attempts.", "stage", "verdict", "reason"),
		jobs:     counters("jobs_total", "Jobs by how they ended.", "outcome"),
	}
	m.zero()
	return m
}

// zero makes every series with known labels beforehand. To Prometheus, the first event of
// a counter without a series is not an increase, and an alert on it stays silent.
func (m *stageMetrics) zero() {
	for _, st := range []store.Stage{store.StageDownload, store.StageUnpack, store.StageActivate} {
		for _, state := range []workerState{idle, busy, blocked} {
			m.workers.WithLabelValues(string(st), string(state))
		}
		for _, outcome := range []attemptOutcome{attemptDone, attemptFailed, attemptUndone} {
			m.duration.WithLabelValues(string(st), string(outcome))
		}
		m.wait.WithLabelValues(string(st))
		for class, verdicts := range possible(st) {
			for _, v := range verdicts {
				m.failures.WithLabelValues(string(st), string(v), class)
			}
		}
	}
	for _, v := range []verdict{accepted, retry, reject, violation, superseded, vanished, dead} {
		m.jobs.WithLabelValues(string(v))
	}
}

// attemptOutcome is how an attempt at a stage ended.
type attemptOutcome string

const (
	attemptDone   attemptOutcome = "done" // the result is there, or was there already
	attemptFailed attemptOutcome = "failed"
	attemptUndone attemptOutcome = "undone" // stopped, without a verdict
)

func (m *stageMetrics) took(ctx context.Context, st store.Stage, o attemptOutcome, d time.Duration) {
	metric.Observe(ctx, m.duration.WithLabelValues(string(st), string(o)), d.Seconds())
}

func (m *stageMetrics) waited(st store.Stage, d time.Duration) {
	m.wait.WithLabelValues(string(st)).Observe(d.Seconds())
}

// failure counts a failed attempt. The last one of an image counts as the others did:
// jobs says that the image was given up, and half the series are enough.
func (m *stageMetrics) failure(st store.Stage, j judgement) {
	v := j.verdict
	if j.exhausted {
		v = retry
	}
	m.failures.WithLabelValues(string(st), string(v), j.class).Inc()
}

func (m *stageMetrics) jobEnded(v verdict) { m.jobs.WithLabelValues(string(v)).Inc() }

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
	stage   store.Stage
	state   workerState
	since   time.Time
	metrics *stageMetrics
}

// worker adds an idle worker to a stage.
func (m *stageMetrics) worker(st store.Stage) *worker {
	w := &worker{stage: st, metrics: m}
	w.is(idle)
	return w
}

// is moves the worker to another state. At any moment the states of a stage's workers add
// up to their number, but for the one that moves.
func (w *worker) is(state workerState) {
	if state == w.state {
		return
	}
	now := time.Now()
	if w.state != gone {
		w.metrics.workers.WithLabelValues(string(w.stage), string(w.state)).Dec()
	}
	if w.state == blocked {
		w.metrics.waited(w.stage, now.Sub(w.since))
	}
	if state != gone {
		w.metrics.workers.WithLabelValues(string(w.stage), string(state)).Inc()
	}
	w.state, w.since = state, now
}

package reconcile

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"imagemanager.internal/internal/metric"
)

// leftovers are the kinds of leftovers.
var leftovers = []string{"thin_device", "dm_device", "mount", "loop_device", "file"}

// Metrics say what the reconciles found and did, that of the start included.
type Metrics struct {
	unclaimed  *prometheus.GaugeVec
	problems   prometheus.Gauge
	actions    *prometheus.CounterVec
	duration   prometheus.Histogram
	success    prometheus.Gauge
	recovery   prometheus.Gauge
	toActivate prometheus.Gauge
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := metric.Factory(reg)
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &Metrics{
		unclaimed: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "unclaimed", Help: "Things that no row of the journal claims, as of the last reconcile.",
		}, []string{"kind"}),
		problems: gauge("reconcile_problems", "Things that the last reconcile could not bring into agreement."),
		actions: f.NewCounterVec(prometheus.CounterOpts{
			Name: "reconcile_actions_total", Help: "What reconciles did, that of the start included.",
		}, []string{"action"}),
		duration: f.NewHistogram(metric.Histogram("reconcile_duration_seconds", "Time of a reconcile.",
			.01, .1, 1, 10, 60, 600)),
		success: gauge("reconcile_last_success_timestamp_seconds",
			"Unix time of the end of the last reconcile that left nothing; 0 before the first."),
		recovery: gauge("recovery_duration_seconds",
			"Time that the reconcile of the start took, without the activation of snapshots; 0 before its end."),
		toActivate: gauge("snapshots_to_activate", "Snapshots that the start found inactive and has yet to activate."),
	}
	for _, kind := range leftovers {
		m.leftover(kind, 0)
	}
	for _, kind := range actionKinds {
		m.actions.WithLabelValues(kind.label())
	}
	return m
}

func (m *Metrics) leftover(kind string, n int) { m.unclaimed.WithLabelValues(kind).Set(float64(n)) }

func (m *Metrics) did(kind ActionKind) { m.actions.WithLabelValues(kind.label()).Inc() }

// ended notes the end of a reconcile that began then and left so many problems.
func (m *Metrics) ended(began time.Time, problems int) {
	m.duration.Observe(time.Since(began).Seconds())
	m.left(problems)
}

// prepared notes that the reconcile at the start has ended. It counts as a success only
// when the snapshots are active.
func (m *Metrics) prepared(began time.Time, rc Recovered) {
	took := time.Since(began).Seconds()
	m.duration.Observe(took)
	m.recovery.Set(took)
	if m.problems.Set(float64(len(rc.Problems))); rc.ToActivate == 0 {
		m.left(len(rc.Problems))
	}
}

// left notes how many problems there are now that all was tried.
func (m *Metrics) left(problems int) {
	m.problems.Set(float64(problems))
	if problems == 0 {
		m.success.SetToCurrentTime()
	}
}

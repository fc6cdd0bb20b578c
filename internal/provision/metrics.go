package provision

import (
	"github.com/prometheus/client_golang/prometheus"

	"imagemanager.internal/internal/store"
)

// Metrics counts what the journal records. Labels are bounded.
type Metrics struct {
	events   *prometheus.CounterVec
	handoffs *prometheus.CounterVec
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(
			prometheus.CounterOpts{Namespace: "imagemanager", Name: name, Help: help}, labels)
	}
	m := &Metrics{
		events: counter("journal_events_total", "Events written to the journal.", "kind", "stage"),
		handoffs: counter("handoffs_total",
			"Work that was done already: joined a running job, settled at intake, or found by a stage.", "how"),
	}
	reg.MustRegister(m.events, m.handoffs)
	for _, how := range []string{"joined", "settled", "stage"} {
		m.handoffs.WithLabelValues(how)
	}
	return m
}

func (m *Metrics) event(kind store.EventKind, st store.Stage) {
	m.events.WithLabelValues(string(kind), string(st)).Inc()
}

// HandedOff counts work done before; how is "joined", "settled" or "stage".
func (m *Metrics) HandedOff(how string) { m.handoffs.WithLabelValues(how).Inc() }

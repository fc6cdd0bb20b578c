package pipeline

import (
	"github.com/prometheus/client_golang/prometheus"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/metric"
	"imagemanager.internal/internal/store"
)

// Metrics count what the pipeline does. Labels are bounded: stages, verdicts, reason
// codes; never keys. Every series with known labels is there from the start.
type Metrics struct {
	queue   queueMetrics
	stage   stageMetrics
	pool    poolMetrics
	disk    diskMetrics
	kept    kept
	attacks *prometheus.CounterVec
	pending *prometheus.GaugeVec
}

// NewMetrics registers the pipeline's metrics, and the counts of a journal.
func NewMetrics(reg prometheus.Registerer, s *store.Store) *Metrics {
	f := metric.Factory(reg)
	m := &Metrics{
		queue: newQueueMetrics(f),
		stage: newStageMetrics(f),
		pool:  newPoolMetrics(f),
		disk:  newDiskMetrics(f),
		kept:  newKept(f),
		attacks: f.NewCounterVec(prometheus.CounterOpts{
			Name: "security_violations_total", Help: "Archives refused as attacks.",
		}, []string{"rule"}),
		pending: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "pending_images",
			Help: "Pending images without a job: waiting for their next attempt, or found in nobody's hands.",
		}, []string{"held_by"}),
	}
	for _, r := range archive.Rules() {
		if r.Violation {
			m.attacks.WithLabelValues(string(r.Reason))
		}
	}
	m.waiting(0, 0)
	registerCounts(reg, s)
	return m
}

// describe sets the gauges of what is configured.
func (m *Metrics) describe(cfg Config, table []stage) {
	for _, st := range table {
		m.stage.capacity.WithLabelValues(string(st.name)).Set(float64(st.workers))
	}
	m.pool.setReserves(cfg.MinFreeData, cfg.MinFreeMetadata)
}

func (m *Metrics) violation(rule string) { m.attacks.WithLabelValues(rule).Inc() }

func (m *Metrics) waiting(timer, nobody int) {
	m.pending.WithLabelValues("timer").Set(float64(timer))
	m.pending.WithLabelValues("nobody").Set(float64(nobody))
}

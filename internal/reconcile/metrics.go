package reconcile

import "github.com/prometheus/client_golang/prometheus"

// leftovers are the kinds of leftovers.
var leftovers = []string{"thin_device", "dm_device", "mount", "loop_device", "file"}

// Metrics say what the last reconcile found.
type Metrics struct {
	unclaimed *prometheus.GaugeVec
	problems  prometheus.Gauge
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		unclaimed: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "imagemanager", Name: "unclaimed",
			Help: "Things that no row of the journal claims, as of the last reconcile.",
		}, []string{"kind"}),
		problems: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "imagemanager", Name: "reconcile_problems",
			Help: "Things that the last reconcile could not bring into agreement.",
		}),
	}
	reg.MustRegister(m.unclaimed, m.problems)
	return m
}

func (m *Metrics) leftover(kind string, n int) { m.unclaimed.WithLabelValues(kind).Set(float64(n)) }

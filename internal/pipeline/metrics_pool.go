package pipeline

import (
	"github.com/prometheus/client_golang/prometheus"

	"imagemanager.internal/internal/devmapper"
)

// poolMetrics are the space of the thin pool, in bytes. A whole and its part never share
// a name: their sum would mean nothing.
type poolMetrics struct {
	dataUsed, dataSize, metadataUsed, metadataSize prometheus.Gauge
}

func newPoolMetrics(reg prometheus.Registerer) poolMetrics {
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help})
		reg.MustRegister(g)
		return g
	}
	return poolMetrics{
		dataUsed:     gauge("pool_data_used_bytes", "Mapped data of the thin pool."),
		dataSize:     gauge("pool_data_size_bytes", "Size of the thin pool's data."),
		metadataUsed: gauge("pool_metadata_used_bytes", "Used metadata of the thin pool."),
		metadataSize: gauge("pool_metadata_size_bytes", "Size of the thin pool's metadata."),
	}
}

// set notes what the kernel said of the pool.
func (pm poolMetrics) set(s devmapper.Status) {
	pm.dataUsed.Set(float64(s.UsedData))
	pm.dataSize.Set(float64(s.TotalData))
	pm.metadataUsed.Set(float64(s.UsedMetadata))
	pm.metadataSize.Set(float64(s.TotalMetadata))
}

// RegisterReady registers the gauge of readiness: 1 while ready returns nil, as /readyz.
func RegisterReady(reg prometheus.Registerer, ready func() error) {
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: namespace, Name: "ready", Help: "Whether work is taken: 1 while /readyz answers 200, otherwise 0.",
	}, func() float64 {
		if ready() != nil {
			return 0
		}
		return 1
	}))
}

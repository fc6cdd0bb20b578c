package pipeline

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/metric"
)

// poolMetrics are the thin pool as the kernel describes it. A whole and its part never
// share a name: their sum would mean nothing.
type poolMetrics struct {
	dataUsed, dataSize, metadataUsed, metadataSize prometheus.Gauge // bytes

	dataReserve, metadataReserve prometheus.Gauge // fractions
	mode                         *prometheus.GaugeVec
	needsCheck                   prometheus.Gauge
}

// poolModes are the kernel's modes by their labels.
var poolModes = map[string]devmapper.Mode{
	"read_write": devmapper.ModeReadWrite, "out_of_data_space": devmapper.ModeOutOfDataSpace,
	"read_only": devmapper.ModeReadOnly, "fail": devmapper.ModeFailed,
}

func newPoolMetrics(f promauto.Factory) poolMetrics {
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	pm := poolMetrics{
		dataUsed:        gauge("pool_data_used_bytes", "Mapped data of the thin pool."),
		dataSize:        gauge("pool_data_size_bytes", "Size of the thin pool's data."),
		metadataUsed:    gauge("pool_metadata_used_bytes", "Used metadata of the thin pool."),
		metadataSize:    gauge("pool_metadata_size_bytes", "Size of the thin pool's metadata."),
		dataReserve:     gauge("pool_data_reserve_ratio", "Free fraction of the data below which intake pauses."),
		metadataReserve: gauge("pool_metadata_reserve_ratio", "The same of the metadata."),
		mode: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "pool_mode", Help: "1 for the mode of the thin pool, 0 for the others.",
		}, []string{"mode"}),
		needsCheck: gauge("pool_needs_check", "1 if the metadata must be checked by consumer pool repair, else 0."),
	}
	for label := range poolModes {
		pm.mode.WithLabelValues(label)
	}
	return pm
}

// set notes what the kernel said of the pool.
func (pm poolMetrics) set(s devmapper.Status) {
	pm.dataUsed.Set(float64(s.UsedData))
	pm.dataSize.Set(float64(s.TotalData))
	pm.metadataUsed.Set(float64(s.UsedMetadata))
	pm.metadataSize.Set(float64(s.TotalMetadata))
	pm.needsCheck.Set(zeroOrOne(s.NeedsCheck))
	for label, mode := range poolModes {
		pm.mode.WithLabelValues(label).Set(zeroOrOne(s.Mode == mode))
	}
}

// setReserves notes the fractions of the pool that must stay free.
func (pm poolMetrics) setReserves(data, metadata float64) {
	pm.dataReserve.Set(data)
	pm.metadataReserve.Set(metadata)
}

func zeroOrOne(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// diskMetrics are about the file systems of the state directory and of the pool's files.
type diskMetrics struct{ free, reserve *prometheus.GaugeVec }

func newDiskMetrics(f promauto.Factory) diskMetrics {
	gauges := func(name, help string) *prometheus.GaugeVec {
		return f.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"path"})
	}
	return diskMetrics{
		free:    gauges("disk_free_bytes", "Free bytes of the file system with the directory."),
		reserve: gauges("disk_reserve_bytes", "Free bytes below which intake pauses (STATE_MIN_FREE)."),
	}
}

// set notes what is free on a file system, and what must be.
func (dm diskMetrics) set(label string, free, reserve int64) {
	dm.free.WithLabelValues(label).Set(float64(free))
	dm.reserve.WithLabelValues(label).Set(float64(reserve))
}

// RegisterReady registers the gauge of readiness: 1 while ready returns nil, as /readyz.
func RegisterReady(reg prometheus.Registerer, ready func() error) {
	metric.Factory(reg).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ready", Help: "Whether work is taken: 1 while /readyz answers 200, otherwise 0.",
	}, func() float64 { return zeroOrOne(ready() == nil) })
}

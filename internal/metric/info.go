package metric

import (
	"runtime/debug"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors/version"
	build "github.com/prometheus/common/version"
)

// RegisterInfo registers two gauges that are always 1. Their labels say which build this
// is, and which instance: by policy, bucket and queue.
func RegisterInfo(reg prometheus.Registerer, policy, bucket, queue string) {
	reg.MustRegister(version.NewCollector(strings.TrimSuffix(prefix, "_"),
		version.WithExtraConstLabels(prometheus.Labels{"version": Version()})))
	Factory(reg).NewGauge(prometheus.GaugeOpts{
		Name: "config_info", Help: "The settings that identify this instance.",
		ConstLabels: prometheus.Labels{"policy": policy, "bucket": bucket, "queue": queue},
	}).Set(1)
}

// Version is that of the program: what the linker set, with
// -X github.com/prometheus/common/version.Version=…, or else the version of the module.
func Version() string {
	if build.Version != "" {
		return build.Version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "unknown"
}

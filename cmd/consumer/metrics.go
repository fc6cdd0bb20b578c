package main

import (
	"net/http"
	"path"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"imagemanager.internal/internal/metric"
)

// newRegistry returns a registry with the metrics of the process: they are there before
// anything takes time.
func newRegistry(c config) *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	metric.RegisterInfo(reg, c.Policy, c.Bucket, path.Base(c.QueueURL))
	return reg
}

// metricsHandler answers scrapes in the format asked for: text, OpenMetrics (with
// exemplars), or protobuf (with native histograms).
func metricsHandler(reg *prometheus.Registry) http.Handler {
	return promhttp.InstrumentMetricHandler(reg,
		promhttp.HandlerFor(reg, promhttp.HandlerOpts{EnableOpenMetrics: true, Registry: reg}))
}

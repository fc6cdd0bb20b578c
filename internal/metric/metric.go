// Package metric has what the metrics of all packages share: their prefix, the shape of
// their histograms, and what ties them to traces.
package metric

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// prefix begins the name of every metric of the program.
const prefix = "imagemanager_"

// Factory makes metrics, adds the program's prefix to their names, and registers them.
// Registering a name twice panics: it is a fault of the program.
func Factory(reg prometheus.Registerer) promauto.Factory {
	return promauto.With(Registerer(reg))
}

// Registerer adds the program's prefix to the names of what it registers.
func Registerer(reg prometheus.Registerer) prometheus.Registerer {
	return prometheus.WrapRegistererWithPrefix(prefix, reg)
}

// Histogram describes a histogram for a Factory. A scraper gets the buckets, whose upper
// bounds are in the metric's unit, or a native histogram if it asks for one.
func Histogram(name, help string, buckets ...float64) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Name: name, Help: help, Buckets: buckets,
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100,
	}
}

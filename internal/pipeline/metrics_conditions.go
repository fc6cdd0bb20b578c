package pipeline

import (
	"github.com/prometheus/client_golang/prometheus"

	"imagemanager.internal/internal/metric"
	"imagemanager.internal/internal/pipeline/health"
)

// conditions is a collector: a scrape finds every condition as of one moment.
type conditions struct {
	desc *prometheus.Desc
	why  func() health.Reasons
}

// RegisterConditions registers a gauge for each condition: 1 while it is active. why is
// called for every scrape.
func RegisterConditions(reg prometheus.Registerer, why func() health.Reasons) {
	metric.Registerer(reg).MustRegister(&conditions{why: why, desc: prometheus.NewDesc(
		"condition_active",
		"What keeps work from being taken: 1 while active, otherwise 0.", []string{"condition"}, nil)})
}

// Describe implements prometheus.Collector.
func (c *conditions) Describe(all chan<- *prometheus.Desc) { all <- c.desc }

// Collect implements prometheus.Collector.
func (c *conditions) Collect(all chan<- prometheus.Metric) {
	for _, condition := range c.why().Conditions() {
		active := 0.0
		if condition.Err != nil {
			active = 1
		}
		all <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, active, string(condition.Name))
	}
}

package pipeline

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"imagemanager.internal/internal/metric"
	"imagemanager.internal/internal/store"
)

// countTimeout bounds what a scrape waits for the database.
const countTimeout = time.Second

// journalCounts reads the number of images and devices from the journal at every scrape,
// so that they are right from the first one on, after a restart as well.
type journalCounts struct {
	store           *store.Store
	images, devices *prometheus.Desc
}

// registerCounts registers the counts of a journal. While it cannot be read, a scrape
// lacks them, and has everything else.
func registerCounts(reg prometheus.Registerer, s *store.Store) {
	metric.Registerer(reg).MustRegister(&journalCounts{
		store:   s,
		images:  prometheus.NewDesc("images", "Images by state.", []string{"state"}, nil),
		devices: prometheus.NewDesc("devices", "Thin devices by kind and state.", []string{"kind", "state"}, nil),
	})
}

// Describe implements prometheus.Collector.
func (c *journalCounts) Describe(out chan<- *prometheus.Desc) {
	out <- c.images
	out <- c.devices
}

// Collect implements prometheus.Collector.
func (c *journalCounts) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), countTimeout)
	defer cancel()
	if images, err := c.store.Counts(ctx); err == nil {
		for _, state := range store.States() {
			out <- prometheus.MustNewConstMetric(c.images, prometheus.GaugeValue, float64(images[state]), string(state))
		}
	}
	if devices, err := c.store.CountDevices(ctx); err == nil {
		for _, d := range devices {
			out <- prometheus.MustNewConstMetric(c.devices, prometheus.GaugeValue, float64(d.N),
				string(d.Kind), string(d.State))
		}
	}
}

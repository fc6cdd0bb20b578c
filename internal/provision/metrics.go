package provision

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/metric"
	"imagemanager.internal/internal/store"
)

// Metrics count what is done on this host. Labels are bounded.
type Metrics struct {
	events   *prometheus.CounterVec
	handoffs *prometheus.CounterVec
	bytes    *prometheus.CounterVec

	steps    *prometheus.HistogramVec
	adjusted *prometheus.CounterVec
	size     prometheus.Histogram
	entries  prometheus.Histogram
	reserved prometheus.Gauge

	download downloadMetrics
	kernel   *prometheus.HistogramVec
	store    storeMetrics
}

// downloadMetrics count the requests for objects.
type downloadMetrics struct {
	requests *prometheus.CounterVec
	resumed  prometheus.Counter
	stalls   prometheus.Counter
}

// storeMetrics are about the database's write transactions.
type storeMetrics struct {
	took prometheus.Histogram
	busy prometheus.Counter
}

// NewMetrics registers the metrics. Every series with known labels is there from the
// start, because the first event of a counter without a series is not an increase.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := metric.Factory(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &Metrics{
		events: counters("journal_events_total", "Events written to the journal.", "kind", "stage"),
		handoffs: counters("handoffs_total",
			"Work that was done already: joined a running job, settled at intake, or found by a stage.", "how"),
		bytes: counters("stage_bytes_total", "Bytes fetched by downloads, and bytes of files written by unpacks.",
			"stage"),
		adjusted: counters("extract_adjusted_total", "Entries changed by the policy.", "rule"),
		reserved: f.NewGauge(prometheus.GaugeOpts{
			Name: "pool_reserved_bytes", Help: "Data of the thin pool set aside for running unpacks.",
		}),
		download: downloadMetrics{
			requests: counters("download_requests_total", "Requests for objects or parts of them, without "+
				"the SDK's own retries.", "result"),
			resumed: counter("download_resumed_bytes_total", "Bytes that downloads found of earlier attempts."),
			stalls:  counter("download_stalls_total", "Downloads ended because no byte came for too long."),
		},
	}
	m.addHistograms(f)
	m.zero()
	return m
}

func (m *Metrics) addHistograms(f promauto.Factory) {
	m.steps = f.NewHistogramVec(metric.Histogram("unpack_step_duration_seconds", "Time of a step of an unpack.",
		.01, .1, 1, 10, 60), []string{"step"})
	m.size = f.NewHistogram(metric.Histogram("image_size_bytes", "Files of an accepted image together.",
		1<<20, 16<<20, 128<<20, 512<<20, 1<<30, 4<<30, 10<<30))
	m.entries = f.NewHistogram(metric.Histogram("image_entries", "Entries of an accepted image.",
		100, 1_000, 5_000, 10_000, 50_000, 100_000))
	m.kernel = f.NewHistogramVec(metric.Histogram("dm_ioctl_duration_seconds",
		"Time of an ioctl of the device-mapper.", .001, .01, .1), []string{"command"})
	m.store = storeMetrics{
		took: f.NewHistogram(metric.Histogram("store_transaction_duration_seconds",
			"Time of a write transaction of the database, until it is on disk.",
			.001, .0025, .005, .01, .025, .05, .1, .25, 1, 5)),
		busy: f.NewCounter(prometheus.CounterOpts{
			Name: "store_busy_total", Help: "Write transactions that failed because another process held the lock.",
		}),
	}
}

func (m *Metrics) zero() {
	m.events.WithLabelValues(string(store.EventQueued), "")
	m.events.WithLabelValues(string(store.EventResubmitted), "")
	m.events.WithLabelValues(string(store.EventRemoved), "")                          // an image
	m.events.WithLabelValues(string(store.EventRemoved), string(store.StageActivate)) // a snapshot
	for _, st := range []store.Stage{store.StageDownload, store.StageUnpack, store.StageActivate} {
		for _, kind := range []store.EventKind{
			store.EventBegun, store.EventStep, store.EventDone, store.EventFailed, store.EventUndone,
			store.EventReopened,
		} {
			if kind != store.EventStep || st != store.StageDownload {
				m.events.WithLabelValues(string(kind), string(st))
			}
		}
	}
	for _, how := range []string{"joined", "settled", "stage"} {
		m.handoffs.WithLabelValues(how)
	}
	for _, st := range []store.Stage{store.StageDownload, store.StageUnpack} {
		m.bytes.WithLabelValues(string(st))
	}
	for _, result := range []string{"ok", "failed"} {
		m.download.requests.WithLabelValues(result)
	}
	for _, step := range unpackSteps {
		m.steps.WithLabelValues(string(step))
	}
	for _, r := range archive.Rules() {
		if r.Adjusts() {
			m.adjusted.WithLabelValues(string(r.Reason))
		}
	}
	for _, command := range devmapper.Commands() {
		m.kernel.WithLabelValues(command)
	}
}

func (m *Metrics) event(kind store.EventKind, st store.Stage) {
	m.events.WithLabelValues(string(kind), string(st)).Inc()
}

// HandedOff counts work done before; how is "joined", "settled" or "stage".
func (m *Metrics) HandedOff(how string) { m.handoffs.WithLabelValues(how).Inc() }

func (m *Metrics) stepTook(step unpackStep, d time.Duration) {
	m.steps.WithLabelValues(string(step)).Observe(d.Seconds())
}

// judged counts an accepted archive, and what the policy changed in it.
func (m *Metrics) judged(plan *archive.Plan) {
	m.size.Observe(float64(plan.Bytes))
	m.entries.Observe(float64(plan.Entries))
	for rule, n := range plan.AdjustedBy {
		m.adjusted.WithLabelValues(string(rule)).Add(float64(n))
	}
}

func (m *Metrics) setReserved(bytes int64) { m.reserved.Set(float64(bytes)) }

// Download returns what a Downloader reports to.
func (m *Metrics) Download() download.Observer {
	return download.Observer{
		Requested: func(err error) {
			result := "ok"
			if err != nil {
				result = "failed"
			}
			m.download.requests.WithLabelValues(result).Inc()
		},
		Received: func(n int) { m.bytes.WithLabelValues(string(store.StageDownload)).Add(float64(n)) },
		Resumed:  func(n int64) { m.download.resumed.Add(float64(n)) },
		Stalled:  m.download.stalls.Inc,
	}
}

// Ioctl observes an ioctl of the device-mapper.
func (m *Metrics) Ioctl(command string, took time.Duration) {
	m.kernel.WithLabelValues(command).Observe(took.Seconds())
}

// Transaction observes a write transaction of the database. One that does not wait for
// the disk says nothing of how fast the disk is.
func (m *Metrics) Transaction(took time.Duration, synced bool, err error) {
	if synced {
		m.store.took.Observe(took.Seconds())
	}
	if store.Busy(err) {
		m.store.busy.Inc()
	}
}

package pipeline

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/rs/zerolog"

	"imagemanager.internal/internal/pipeline/health"
	"imagemanager.internal/internal/store"
)

const (
	// measureEvery is how often what grows is measured.
	measureEvery = 30 * time.Second
	// idleAfter is how long there must have been nothing to do before the database's log
	// is emptied: emptying waits for no reader, but makes writers wait for the disk.
	idleAfter = 5 * time.Second
)

// kept has the gauges of what grows forever, or until an operator acts.
type kept struct {
	rows, bytes, files *prometheus.GaugeVec
}

func newKept(f promauto.Factory) kept {
	gauge := func(name, help, label string) *prometheus.GaugeVec {
		return f.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{label})
	}
	return kept{
		rows:  gauge("database_rows", "Rows of the tables that only grow, and of the quarantine.", "table"),
		bytes: gauge("kept_bytes", "Bytes in the state directory.", "what"),
		files: gauge("kept_files", "Files in the state directory.", "what"),
	}
}

// growth measures what grows, and empties the database's log while there is nothing to
// do.
type growth struct {
	store   *store.Store
	dirs    map[string]string // by the label of the gauge
	idle    func() bool       // no image is on its way
	limit   *health.LogLimit
	log     zerolog.Logger
	metrics *Metrics
}

// watch works until ctx ends.
func (g *growth) watch(ctx context.Context) {
	var measured, busy time.Time
	for ctx.Err() == nil {
		now := time.Now()
		if now.Sub(measured) >= measureEvery {
			measured = now
			if err := g.measure(ctx); err != nil && ctx.Err() == nil {
				g.log.Warn().Err(err).Msg("what is kept cannot be measured")
			}
		}
		if !g.idle() {
			busy = now
		}
		if now.Sub(busy) >= idleAfter {
			g.emptyLog(ctx)
		}
		wait(ctx, time.Second)
	}
}

// emptyLog empties the database's log. A reader may prevent that; it is tried again
// later.
func (g *growth) emptyLog(ctx context.Context) {
	if err := g.store.TruncateWAL(ctx); err != nil && ctx.Err() == nil && g.limit.Allows("log", time.Now()) {
		g.log.Warn().Err(err).Msg("the database's log cannot be emptied; it is tried again")
	}
}

// measure sets the gauges.
func (g *growth) measure(ctx context.Context) error {
	size, err := g.store.Size(ctx)
	if err == nil {
		for table, n := range map[string]int64{
			"images": size.Images, "events": size.Events, "devices": size.Devices,
			"quarantine": size.Quarantined,
		} {
			g.metrics.kept.rows.WithLabelValues(table).Set(float64(n))
		}
		g.metrics.kept.bytes.WithLabelValues("database").Set(float64(size.Bytes))
		g.metrics.kept.bytes.WithLabelValues("database_log").Set(float64(size.WALBytes))
	}
	for what, dir := range g.dirs {
		files, bytes, e := sizeOf(dir)
		err = errors.Join(err, e)
		g.metrics.kept.files.WithLabelValues(what).Set(float64(files))
		g.metrics.kept.bytes.WithLabelValues(what).Set(float64(bytes))
	}
	return err
}

// sizeOf counts the files under a directory, and their bytes. A missing directory has
// none.
func sizeOf(dir string) (files int, bytes int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			var info fs.FileInfo
			if info, err = e.Info(); err == nil {
				files, bytes = files+1, bytes+info.Size()
			}
		}
		if errors.Is(err, fs.ErrNotExist) { // removed meanwhile, or never made
			return nil
		}
		return err
	})
	return files, bytes, err
}

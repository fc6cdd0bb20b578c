package pipeline

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// measureEvery is how often what grows is measured.
	measureEvery = 30 * time.Second
	// idleAfter is how long there must have been nothing to do before the database's log
	// is emptied: that waits for no reader, but makes writers wait for the disk.
	idleAfter = 5 * time.Second
)

// kept has the gauges of what grows for ever, or until an operator acts.
type kept struct {
	rows, bytes, files *prometheus.GaugeVec
}

func newKept(reg prometheus.Registerer) kept {
	gauge := func(name, help, label string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help},
			[]string{label})
	}
	k := kept{
		rows:  gauge("database_rows", "Rows of the tables that only grow, and of the quarantine.", "table"),
		bytes: gauge("kept_bytes", "Bytes in the state directory.", "what"),
		files: gauge("kept_files", "Files in the state directory.", "what"),
	}
	reg.MustRegister(k.rows, k.bytes, k.files)
	return k
}

// growth measures what grows, and empties the database's log when nothing is to be done.
func (p *Pipeline) growth(ctx context.Context) {
	var measured, busy time.Time
	for ctx.Err() == nil {
		now := time.Now()
		if now.Sub(measured) >= measureEvery {
			measured = now
			if err := p.measure(ctx); err != nil && ctx.Err() == nil {
				p.Log.Warn().Err(err).Msg("what is kept cannot be measured")
			}
		}
		if !p.idle() {
			busy = now
		}
		if now.Sub(busy) >= idleAfter {
			p.emptyLog(ctx)
		}
		wait(ctx, time.Second)
	}
}

// idle reports whether no image is on its way through the stages.
func (p *Pipeline) idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.jobs) == 0
}

// emptyLog empties the database's log. A reader may prevent that; there is another time.
func (p *Pipeline) emptyLog(ctx context.Context) {
	if err := p.Store.EmptyLog(ctx); err != nil && ctx.Err() == nil && p.quiet.allows("log", time.Now()) {
		p.Log.Warn().Err(err).Msg("the database's log cannot be emptied; it is tried again")
	}
}

// measure sets the gauges.
func (p *Pipeline) measure(ctx context.Context) error {
	size, err := p.Store.Size(ctx)
	if err == nil {
		for table, n := range map[string]int64{
			"images": size.Images, "events": size.Events, "devices": size.Devices,
			"quarantine": size.Quarantined,
		} {
			p.metrics.kept.rows.WithLabelValues(table).Set(float64(n))
		}
		p.metrics.kept.bytes.WithLabelValues("database").Set(float64(size.Bytes))
		p.metrics.kept.bytes.WithLabelValues("database_log").Set(float64(size.LogBytes))
	}
	for what, dir := range map[string]string{
		"archives": filepath.Join(p.cfg.StateDir, "blobs"), "manifests": p.cfg.ManifestDir,
		"violations": p.cfg.ViolationDir,
	} {
		files, bytes, e := weigh(dir)
		err = errors.Join(err, e)
		p.metrics.kept.files.WithLabelValues(what).Set(float64(files))
		p.metrics.kept.bytes.WithLabelValues(what).Set(float64(bytes))
	}
	return err
}

// weigh counts the files under a directory, and their bytes; nothing where there is none.
func weigh(dir string) (files int, bytes int64, err error) {
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

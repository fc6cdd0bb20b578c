package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/reconcile"
)

// local is what works on the images of this machine. It needs neither a queue nor a
// bucket.
type local struct {
	host     *provision.Host
	record   *provision.Recorder
	archives *download.Downloader
	disks    []string // directories on the file systems with our files

	reconciler func(reconcile.Jobs) *reconcile.Reconciler
}

// openLocal wires the store and the pool to what works on images. Without an API it
// downloads nothing.
func (s *system) openLocal(ctx context.Context, api download.API, reg prometheus.Registerer) (*local, error) {
	archives, err := download.New(api,
		download.Config{
			Dir: filepath.Join(s.cfg.StateDir, "blobs"), MaxBytes: int64(s.cfg.MaxImage),
			Observer: s.metrics.Download(),
		})
	if err != nil {
		return nil, err
	}
	disks, poolDir, err := s.disks(ctx)
	if err != nil {
		return nil, err
	}
	cfg := s.cfg.provision()
	cfg.PoolDir = poolDir
	record := provision.NewRecorder(s.store, s.log, s.metrics)
	host := provision.New(cfg, record, archives, s.pool)
	metrics := reconcile.NewMetrics(reg)
	return &local{
		host: host, record: record, archives: archives, disks: disks,
		reconciler: func(jobs reconcile.Jobs) *reconcile.Reconciler {
			return reconcile.New(reconcile.Deps{
				Store: s.store, Pool: s.pool, Archives: archives, Host: host, Recorder: record,
				Jobs: jobs, Log: s.log, Metrics: metrics,
			})
		},
	}, nil
}

// disks returns directories on the file systems to watch: that of the state, and those of
// the pool's files. poolDir is where the pool's data file grows; it is empty if
// the pool is on block devices.
func (s *system) disks(ctx context.Context) (dirs []string, poolDir string, err error) {
	dirs = []string{s.cfg.StateDir}
	if s.store == nil { // it is being rebuilt
		return dirs, "", nil
	}
	row, err := s.store.Pool(ctx)
	if err != nil {
		return nil, "", err
	}
	for _, path := range []string{row.Data, row.Metadata} {
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		if path == row.Data {
			poolDir = filepath.Dir(path)
		}
		if !slices.Contains(dirs, filepath.Dir(path)) {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	return dirs, poolDir, nil
}

// openBeside opens the pool for one command, beside a running daemon or without one, but
// not beside the daemon's recovery.
func (s *system) openBeside(ctx context.Context) (*local, error) {
	l, err := s.lookBeside(ctx)
	if err == nil {
		s.raiseGeneration(ctx)
	}
	return l, err
}

// lookBeside is openBeside for a command without changes: the generation stays as it is.
func (s *system) lookBeside(ctx context.Context) (*local, error) {
	if err := s.lockPool(ctx, poolPatience); err != nil {
		return nil, err
	}
	if err := s.openPool(ctx); err != nil {
		return nil, err
	}
	return s.openLocal(ctx, nil, prometheus.NewRegistry())
}

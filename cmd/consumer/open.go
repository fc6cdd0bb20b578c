package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/pipeline"
	"imagemanager.internal/internal/queue"
	"imagemanager.internal/internal/store"
)

// errNoPool says what to do before anything else.
var errNoPool = errors.New("there is no thin pool yet: run `consumer pool create`")

// errPoolLost says how to go on without the pool that the journal names.
var errPoolLost = errors.New(
	"the thin pool is not there: bring its devices or files back; if they are lost, `consumer pool create --replace` makes a new pool, and the next start every image again")

// system is what a command works with: opened in order, closed in reverse.
type system struct {
	cfg   config
	log   zerolog.Logger
	store *store.Store
	pool  *devmapper.Pool

	undo []func() error
}

// Close closes what was opened, the last first. It may be called twice.
func (s *system) Close() error {
	var errs []error
	for i := len(s.undo) - 1; i >= 0; i-- {
		errs = append(errs, s.undo[i]())
	}
	s.undo = nil
	return errors.Join(errs...)
}

func (s *system) onClose(fn func() error) { s.undo = append(s.undo, fn) }

// databasePath is where a state directory keeps its journal.
func databasePath(stateDir string) string { return filepath.Join(stateDir, "consumer.db") }

// openStore opens the journal for writing.
func (s *system) openStore(ctx context.Context) error {
	st, err := store.Open(ctx, databasePath(s.cfg.StateDir))
	if err != nil {
		return err
	}
	s.store = st
	s.onClose(st.Close)
	return nil
}

// openPool attaches the pool that the journal names, after a reboot as after a restart.
func (s *system) openPool(ctx context.Context) error {
	if err := devmapper.Probe(); err != nil {
		return err
	}
	row, err := s.store.Pool(ctx)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return errNoPool
	case err != nil:
		return err
	case row.State != "ready":
		return fmt.Errorf("the pool was not finished: %w", errNoPool)
	}
	pool, err := devmapper.Open(ctx, poolConfig(row))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, devmapper.ErrNoSuperblock) {
		return fmt.Errorf("%w: %w", errPoolLost, err)
	}
	if err != nil {
		return err
	}
	s.pool = pool
	s.onClose(pool.Close)
	return nil
}

// renewPool makes what was copied of the pool's data or metadata before no part of the
// pool any more. Where it cannot be, the pool serves nevertheless; that it is read-only
// is told by whoever needs it.
func (s *system) renewPool(ctx context.Context) {
	generation, err := s.pool.Renew()
	if err == nil {
		err = s.store.PoolGeneration(ctx, generation)
	}
	if err != nil && !errors.Is(err, devmapper.ErrReadOnly) {
		s.log.Warn().Err(err).Msg(
			"a copy of the pool from today will be taken for the pool: its generation was not raised")
	}
}

func poolConfig(row store.Pool) devmapper.Config {
	return devmapper.Config{
		Name: row.Name, UUID: row.UUID, Data: row.Data, Metadata: row.Metadata,
		BlockSize: row.BlockSize, Generation: row.Generation,
	}
}

// openPipeline wires the leaves to the pipeline.
func (s *system) openPipeline(ctx context.Context, reg prometheus.Registerer) (*pipeline.Pipeline, error) {
	s3c, sqsc, err := s.clients(ctx)
	if err != nil {
		return nil, err
	}
	metrics := pipeline.NewMetrics(reg)
	source := download.NewRegional(s3c)
	down, err := download.New(source,
		download.Config{Dir: filepath.Join(s.cfg.StateDir, "blobs"), MaxBytes: int64(s.cfg.MaxImage)})
	if err != nil {
		return nil, err
	}
	cfg := s.cfg.pipeline()
	if cfg.Disks, cfg.PoolDir, err = s.disks(ctx); err != nil {
		return nil, err
	}
	return pipeline.New(cfg, pipeline.Parts{
		Store:      s.store,
		Queue:      queue.New(sqsc, s.cfg.queue(metrics.Queue())),
		Downloader: down,
		Bucket:     download.NewBucket(source, s.cfg.Bucket, s.cfg.Prefix),
		Pool:       s.pool,
		Log:        s.log,
		Metrics:    metrics,
		Exclusive:  s.exclusive,
	})
}

// disks are the directories whose file systems must have room: that of the state, and
// those of the pool's files. poolDir is where its data file grows, "" if they are on a
// block device.
func (s *system) disks(ctx context.Context) (dirs []string, poolDir string, err error) {
	dirs = []string{s.cfg.StateDir}
	if s.store == nil { // it is being made anew
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

// openBeside wires a pipeline for one command about the pool, beside a running daemon or
// without one, but not beside its recovery.
func (s *system) openBeside(ctx context.Context) (*pipeline.Pipeline, error) {
	p, err := s.lookBeside(ctx)
	if err == nil {
		s.renewPool(ctx)
	}
	return p, err
}

// lookBeside is openBeside for a command that changes nothing: not even the generation.
func (s *system) lookBeside(ctx context.Context) (*pipeline.Pipeline, error) {
	if err := s.lockPool(ctx, poolPatience); err != nil {
		return nil, err
	}
	if err := s.openPool(ctx); err != nil {
		return nil, err
	}
	return s.openPipeline(ctx, prometheus.NewRegistry())
}

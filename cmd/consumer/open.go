package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/trace"

	"imagemanager.internal/internal/awsmetrics"
	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/pipeline"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/queue"
	"imagemanager.internal/internal/store"
)

// errNoPool is returned when the journal has no pool.
var errNoPool = errors.New("there is no thin pool yet: run `consumer pool create`")

// errPoolLost is returned when the journal's pool is not there.
var errPoolLost = errors.New("the thin pool is not there: bring its devices or files back; " +
	"if they are lost, `consumer pool create --replace` makes a new pool, and the next start makes every image again")

// system is what a command works with: opened in order, closed in reverse.
type system struct {
	cfg   config
	log   zerolog.Logger
	store *store.Store
	pool  *devmapper.Pool

	metrics *provision.Metrics   // of this machine's work; openSystem makes them
	traces  trace.TracerProvider // where spans begin; nowhere but in the daemon

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

// openStore opens the journal for writing.
func (s *system) openStore(ctx context.Context) error {
	st, err := store.Open(ctx, databasePath(s.cfg.StateDir))
	if err != nil {
		return err
	}
	s.store, st.Observe = st, s.metrics.Transaction
	s.onClose(st.Close)
	return nil
}

// openPool attaches the journal's pool, after a reboot as after a restart.
func (s *system) openPool(ctx context.Context) error {
	if err := devmapper.Probe(); err != nil {
		return err
	}
	row, err := s.store.Pool(ctx)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return s.cfg.noPool()
	case err != nil:
		return err
	case row.State != "ready":
		return fmt.Errorf("the pool was not finished: %w", errNoPool)
	}
	cfg := poolConfig(row)
	cfg.Observe = s.metrics.Ioctl
	pool, err := devmapper.Open(ctx, cfg)
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

// raiseGeneration gives the pool a new generation: a copy of its data or metadata from
// before is not a part of it any more. If it cannot, the pool serves nevertheless. A
// read-only pool is reported by its next user.
func (s *system) raiseGeneration(ctx context.Context) {
	generation, err := s.pool.RaiseGeneration()
	if err == nil {
		err = s.store.SetPoolGeneration(ctx, generation)
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

// openPipeline wires the pipeline to this machine, to the queue and to the bucket.
func (s *system) openPipeline(ctx context.Context, reg prometheus.Registerer) (*pipeline.Pipeline, error) {
	s3c, sqsc, err := s.clients(ctx, awsmetrics.New(reg).Instrument)
	if err != nil {
		return nil, err
	}
	source := download.NewRegional(s3c)
	l, err := s.openLocal(ctx, source, reg)
	if err != nil {
		return nil, err
	}
	cfg := s.cfg.pipeline()
	cfg.Disks = l.disks
	metrics := pipeline.NewMetrics(reg, s.store)
	return pipeline.New(cfg, pipeline.Deps{
		Store:      s.store,
		Queue:      queue.New(sqsc, s.cfg.queue(metrics.Queue())),
		Bucket:     download.NewBucket(source, s.cfg.Bucket, s.cfg.Prefix),
		Pool:       s.pool,
		Host:       l.host,
		Recorder:   l.record,
		Reconciler: l.reconciler,
		Rules:      s.cfg.provision().Rules,
		Log:        s.log,
		Metrics:    metrics,
		Traces:     s.traces,
		Exclusive:  s.exclusive,
		Alone: func(ctx context.Context, do func() error) error {
			return s.holdingPool(ctx, startPatience, do)
		},
	})
}

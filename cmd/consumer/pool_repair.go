package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/docker/go-units"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
)

// cmdPoolRepair checks the metadata of the detached pool, rebuilds what is damaged, and
// enlarges what may be full.
func cmdPoolRepair(ctx context.Context, args []string, out io.Writer) (err error) {
	fs := flags("pool repair", "", out)
	var metadata size
	asJSON := jsonFlag(fs)
	fs.Var(&metadata, "metadata-size", "enlarge the metadata to this size")
	s, err := openCommand(ctx, fs, args, store.OpenExisting)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := noArgs(fs); err != nil {
		return err
	}
	row, err := s.detach(ctx)
	if err != nil {
		return err
	}
	r, err := devmapper.RepairMetadata(ctx, poolConfig(row), int64(metadata))
	if err != nil {
		return err
	}
	if *asJSON {
		return printJSON(out, r)
	}
	t := newTable(out, "METADATA", "REBUILT", "FLAG CLEARED", "ENLARGED", "DAMAGED KEPT AS")
	t.row(units.BytesSize(float64(r.Bytes)), fmt.Sprint(r.Rebuilt), fmt.Sprint(r.FlagCleared), fmt.Sprint(r.Enlarged),
		dash(r.DamagedSaved))
	return t.flush()
}

// cmdPoolDetach is the way to take the pool off this machine, or out of the way of
// maintenance.
func cmdPoolDetach(ctx context.Context, args []string, out io.Writer) (err error) {
	fs := flags("pool detach", "", out)
	s, err := openCommand(ctx, fs, args, store.OpenExisting)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	row, err := s.detach(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "pool %s detached; its data stays in %s\n", row.Name, row.Data)
	return nil
}

// detach takes the pool off the machine, while no daemon runs.
func (s *system) detach(ctx context.Context) (store.Pool, error) {
	if err := s.lockAll(ctx); err != nil {
		return store.Pool{}, err
	}
	row, err := s.store.Pool(ctx)
	if errors.Is(err, store.ErrNotFound) {
		return row, errNoPool
	}
	if err != nil {
		return row, err
	}
	return row, devmapper.Detach(poolConfig(row))
}

package main

import (
	"context"
	"errors"
	"io"
	"path/filepath"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
)

// cmdPoolLocate records other names of the pool's devices or files. They are the pool's
// if they prove it, as at every start; nothing is written before.
func cmdPoolLocate(ctx context.Context, args []string, out io.Writer) (err error) {
	fs := flags("pool locate", "", out)
	asJSON := jsonFlag(fs)
	data := fs.String("data", "", "block device or file that the pool's data are on now (default: as before)")
	metadata := fs.String("metadata", "", "block device or file that its metadata are on now (default: as before)")
	s, err := openCommand(ctx, fs, args, store.Open)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := noArgs(fs); err != nil {
		return err
	}
	if *data == "" && *metadata == "" {
		return &usageError{errors.New("pool locate needs --data or --metadata")}
	}
	if err := errors.Join(s.lockState("daemon.lock"), s.lockState("pool.lock")); err != nil {
		return err
	}
	if err := s.locatePool(ctx, *data, *metadata); err != nil {
		return err
	}
	return s.printPool(ctx, out, *asJSON)
}

func (s *system) locatePool(ctx context.Context, data, metadata string) error {
	if err := devmapper.Probe(); err != nil {
		return err
	}
	row, err := s.store.Pool(ctx)
	if errors.Is(err, store.ErrNotFound) {
		return errNoPool
	}
	if err != nil {
		return err
	}
	for _, p := range []struct {
		given string
		row   *string
	}{{data, &row.Data}, {metadata, &row.Metadata}} {
		if p.given == "" {
			continue
		}
		if *p.row, err = filepath.Abs(p.given); err != nil {
			return err
		}
		*p.row = devmapper.StablePath(*p.row)
	}
	if s.pool, err = devmapper.Open(ctx, poolConfig(row)); err != nil {
		return err
	}
	s.onClose(s.pool.Close)
	return s.store.SetPoolPaths(ctx, row)
}

package main

import (
	"context"
	"errors"
	"flag"
	"path/filepath"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
)

func poolLocateCommand() command {
	var data, metadata string
	return command{
		name:  "pool locate",
		short: "record where the pool's devices or files are now, after proving them",
		flags: func(fs *flag.FlagSet) {
			fs.StringVar(&data, "data", "", "block device or file with the pool's data now (default: as before)")
			fs.StringVar(&metadata, "metadata", "", "block device or file with its metadata now (default: as before)")
		},
		usage: func(string) error {
			if data == "" && metadata == "" {
				return errors.New("pool locate needs --data or --metadata")
			}
			return nil
		},
		open: store.Open,
		run: func(ctx context.Context, c *call) error {
			if err := errors.Join(c.lockState(daemonLock), c.lockState(poolLock)); err != nil {
				return err
			}
			if err := c.locatePool(ctx, data, metadata); err != nil {
				return err
			}
			return c.printPool(ctx)
		},
	}
}

// locatePool records other names of the pool's devices or files. They are the pool's if
// they prove it, as at every start; nothing is written before.
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

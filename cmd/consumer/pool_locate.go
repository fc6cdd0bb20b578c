package main

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/spf13/cobra"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
)

func poolLocateCommand() *cobra.Command {
	var data, metadata string
	cmd := withTable(&cobra.Command{
		Use:   "locate",
		Short: "Record where the pool's devices or files are now, after proving them",
		Long: `Locate records other paths of the pool's data and metadata, after the kernel gave
disks other names, or after files were moved. They must prove to be this pool's.`,
		Example:     "  consumer pool locate --data /dev/sdc --metadata /dev/sdd",
		Annotations: exits(3, 4),
		Args: cobra.MatchAll(checkArgs, func(*cobra.Command, []string) error {
			if data == "" && metadata == "" {
				return errors.New("pool locate needs --data or --metadata")
			}
			return nil
		}),
		RunE: needs{common, openMigrated}.then(func(ctx context.Context, c *call) error {
			if err := errors.Join(c.lockState(daemonLock), c.lockState(poolLock)); err != nil {
				return err
			}
			if err := c.locatePool(ctx, data, metadata); err != nil {
				return err
			}
			return c.printPool(ctx)
		}),
	})
	cmd.Flags().StringVar(&data, "data", "", "block device or file with the pool's data now (default: as before)")
	cmd.Flags().StringVar(&metadata, "metadata", "", "block device or file with its metadata now (default: as before)")
	return cmd
}

// locatePool records other names of the pool's devices or files. They are the pool's if
// they prove it, as at every start; nothing is written before.
func (s *system) locatePool(ctx context.Context, data, metadata string) error {
	if err := devmapper.Probe(); err != nil {
		return err
	}
	row, err := s.store.Pool(ctx)
	if errors.Is(err, store.ErrNotFound) {
		return s.cfg.noPool()
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

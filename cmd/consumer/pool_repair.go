package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
)

func poolRepairCommand() *cobra.Command {
	var metadata size
	cmd := withTable(&cobra.Command{
		Use:   "repair",
		Short: "Detach the pool, check its metadata, and rebuild or enlarge them",
		Long: `Repair detaches the pool, checks its metadata, rebuilds what is damaged, and clears
the kernel's check flag. The damaged metadata are kept, and their path is
printed. If a device is mounted or open, nothing is done. No daemon may run.`,
		Example:     "  consumer pool repair",
		Annotations: exits(3, 4, 5),
		RunE:        withJournal(func(ctx context.Context, c *call) error { return repairPool(ctx, c, metadata) }),
	})
	cmd.Flags().Var(&metadata, "metadata-size", "enlarge the metadata to this size")
	return cmd
}

// repairPool checks the metadata of the detached pool, rebuilds what is damaged, and
// enlarges what may be full.
func repairPool(ctx context.Context, c *call, metadata size) error {
	row, err := c.detach(ctx)
	if err != nil {
		return err
	}
	r, err := devmapper.RepairMetadata(ctx, poolConfig(row), int64(metadata))
	if err != nil {
		return err
	}
	if c.asJSON {
		return printJSON(c.out, r)
	}
	t := c.table("METADATA", "REBUILT", "FLAG CLEARED", "ENLARGED", "DAMAGED KEPT AS")
	t.row(units.BytesSize(float64(r.Bytes)), fmt.Sprint(r.Rebuilt), fmt.Sprint(r.FlagCleared), fmt.Sprint(r.Enlarged),
		dash(r.DamagedSaved))
	return t.flush()
}

func poolDetachCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "detach",
		Short: "Deactivate every device and the pool; the data stays",
		Long: `Detach takes the snapshots, the pool and its loop devices off the machine. The data
stays, and the next "consumer run" attaches everything again. If a device is
mounted or open, nothing is done. No daemon may run.`,
		Example:     "  consumer pool detach",
		Annotations: exits(3, 4, 5),
		RunE:        withJournal(detachPool),
	}
}

// detachPool is the way to take the pool off this machine, or out of the way of
// maintenance.
func detachPool(ctx context.Context, c *call) error {
	row, err := c.detach(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.out, "pool %s detached; its data stays in %s\n", row.Name, row.Data)
	return nil
}

// detach takes the pool off the machine, while no daemon runs.
func (s *system) detach(ctx context.Context) (store.Pool, error) {
	if err := s.lockAll(ctx); err != nil {
		return store.Pool{}, err
	}
	row, err := s.store.Pool(ctx)
	if errors.Is(err, store.ErrNotFound) {
		return row, s.cfg.noPool()
	}
	if err != nil {
		return row, err
	}
	return row, devmapper.Detach(poolConfig(row))
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/store"
)

func poolStatusCommand() *cobra.Command {
	return withTable(&cobra.Command{
		Use:   "status",
		Short: "Show space and health of the thin pool",
		Long: `Status shows how full the pool is, and what mode the kernel has it in. Of a pool that
is detached or cannot be opened it shows what the journal knows, and attaches
nothing.`,
		Example:     "  consumer pool status",
		Annotations: exits(3, 5),
		RunE:        withJournal(showPool),
	})
}

func showPool(ctx context.Context, c *call) error {
	row, err := c.store.Pool(ctx)
	if errors.Is(err, store.ErrNotFound) {
		return c.cfg.noPool()
	}
	if err != nil {
		return err
	}
	active, err := devmapper.IsActive(poolConfig(row))
	if err == nil && !active && row.State == "ready" {
		return c.printDetached(row)
	}
	if err == nil {
		err = c.openPool(ctx)
	}
	if err != nil {
		return errors.Join(err, c.printInactive(row, "not open", err.Error()))
	}
	return c.printPool(ctx)
}

// printDetached shows a pool that is not active. It is lost if its parts are not there.
func (c *call) printDetached(row store.Pool) error {
	for _, path := range []string{row.Data, row.Metadata} {
		if _, err := os.Stat(path); err != nil {
			err = fmt.Errorf("%w: %w", errPoolLost, err)
			return errors.Join(err, c.printInactive(row, "not open", err.Error()))
		}
	}
	if err := c.printInactive(row, "detached", ""); err != nil || c.asJSON {
		return err
	}
	_, err := fmt.Fprintln(c.out, "nothing of the pool is active; `consumer run` attaches it")
	return err
}

// printInactive shows what the journal knows of a pool, without looking at it. why is
// empty if nothing is wrong.
func (c *call) printInactive(row store.Pool, mode, why string) error {
	if c.asJSON {
		return printJSON(c.out, map[string]any{"pool": row, "status": nil, "error": why})
	}
	t := c.table("POOL", "MODE", "UUID", "BLOCK", "DATA ON", "METADATA ON")
	t.row(row.Name, mode, row.UUID, units.BytesSize(float64(row.BlockSize)), row.Data, row.Metadata)
	return t.flush()
}

// printPool shows the pool's row and what the kernel says of it.
func (c *call) printPool(ctx context.Context) error {
	row, err := c.store.Pool(ctx)
	if err != nil {
		return err
	}
	st, err := c.pool.Status()
	if err != nil {
		return err
	}
	if c.asJSON {
		return printJSON(c.out, map[string]any{"pool": row, "status": st})
	}
	percent := func(used, total int64) string {
		return fmt.Sprintf("%s of %s (%.1f %%)",
			units.BytesSize(float64(used)), units.BytesSize(float64(total)), 100*float64(used)/float64(total))
	}
	t := c.table("POOL", "MODE", "DATA USED", "METADATA USED", "BLOCK", "DATA ON")
	t.row(row.Name, string(st.Mode), percent(st.UsedData, st.TotalData), percent(st.UsedMetadata, st.TotalMetadata),
		units.BytesSize(float64(row.BlockSize)), row.Data)
	return t.flush()
}

func poolGrowCommand() *cobra.Command {
	var data, metadata size
	cmd := withTable(&cobra.Command{
		Use:   "grow",
		Short: "Make the pool larger, while it is in use",
		Long: `Grow extends the pool's files. A block device must have been enlarged before. A pool
cannot shrink.`,
		Example:     "  consumer pool grow --data-size 200GiB",
		Annotations: exits(3, 4, 5),
		Args: cobra.MatchAll(checkArgs, func(*cobra.Command, []string) error {
			if data == 0 && metadata == 0 {
				return errors.New("pool grow needs --data-size or --metadata-size")
			}
			return nil
		}),
		RunE: withJournal(func(ctx context.Context, c *call) error { return growPool(ctx, c, data, metadata) }),
	})
	cmd.Flags().Var(&data, "data-size", "new size of the data")
	cmd.Flags().Var(&metadata, "metadata-size", "new size of the metadata, at most 16GiB")
	return cmd
}

// growPool makes the pool larger while it is in use, by a running daemon too. A size of 0
// leaves that part as it is.
func growPool(ctx context.Context, c *call, data, metadata size) (err error) {
	if err := c.lockPool(ctx, poolPatience); err != nil {
		return err
	}
	if err := c.openPool(ctx); err != nil {
		return err
	}
	if err := c.refuseShrinking(data, metadata); err != nil {
		return err
	}
	if data > 0 {
		err = c.pool.GrowData(int64(data))
		if errors.Is(err, syscall.ENOSPC) {
			err = fmt.Errorf("%w: enlarge them first, with a larger --metadata-size alone", err)
		}
	}
	if err == nil && metadata > 0 {
		err = c.pool.GrowMetadata(int64(metadata))
	}
	if err != nil {
		return fmt.Errorf("grow: %w", err)
	}
	if err := c.warnOfDisk(ctx); err != nil {
		return err
	}
	return c.printPool(ctx)
}

// warnOfDisk says so if the pool's data may outgrow their disk. A data file is sparse, so
// nothing fails before it is full.
func (c *call) warnOfDisk(ctx context.Context) error {
	row, err := c.store.Pool(ctx)
	if err != nil {
		return err
	}
	data, err := os.Stat(row.Data)
	if err != nil || !data.Mode().IsRegular() {
		return err
	}
	dir := filepath.Dir(row.Data)
	_, free, err := provision.FreeUnder(dir)
	if err != nil {
		return err
	}
	const block = 512 // stat(2)
	if st, ok := data.Sys().(*syscall.Stat_t); ok && st.Size-st.Blocks*block > free {
		fmt.Fprintf(c.errs, "warning: the pool may take %s more of the disk, and %s are free under %s: when it is "+
			"full, no image is taken\n", units.BytesSize(float64(st.Size-st.Blocks*block)),
			units.BytesSize(float64(free)), dir)
	}
	return nil
}

// refuseShrinking refuses a size below the one that the pool has.
func (c *call) refuseShrinking(data, metadata size) error {
	st, err := c.pool.Status()
	if err != nil {
		return err
	}
	for _, part := range []struct {
		flag       string
		asked, has int64
	}{
		{"--data-size", int64(data), st.TotalData}, {"--metadata-size", int64(metadata), st.TotalMetadata},
	} {
		if part.asked > 0 && part.asked < part.has {
			return &usageError{fmt.Errorf("%s %s is less than the pool has, %s: a pool cannot shrink", part.flag,
				units.BytesSize(float64(part.asked)), units.BytesSize(float64(part.has)))}
		}
	}
	return nil
}

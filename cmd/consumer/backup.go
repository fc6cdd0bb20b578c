package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
)

func backupCommand() *cobra.Command {
	var force bool
	cmd := withJSON(&cobra.Command{
		Use:   "backup <file>",
		Short: "Copy the database, also while the daemon runs",
		Long: `Backup writes a copy of the database as it is at one moment. To restore it, stop the
daemon and put the copy into the state directory as consumer.db, without
consumer.db-wal and consumer.db-shm.`,
		Example:     `  consumer backup "/var/backups/consumer-$(date +%F).db"`,
		Annotations: exits(3, 5),
		RunE:        withJournal(func(ctx context.Context, c *call) error { return backup(ctx, c, force) }),
	})
	cmd.Flags().BoolVar(&force, "force", false, "replace an existing file")
	return cmd
}

// backup copies the database beside a running daemon or without one. It takes no lock:
// SQLite gives it one moment's view.
func backup(ctx context.Context, c *call, force bool) error {
	dir := filepath.Dir(c.arg())
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no directory %s: make it first", dir)
	}
	b, err := c.store.Backup(ctx, c.arg(), force)
	if errors.Is(err, fs.ErrExist) && !force {
		return fmt.Errorf("%w: --force replaces it", err)
	}
	if err != nil {
		return err
	}
	if c.asJSON {
		return printJSON(c.out, b)
	}
	fmt.Fprintf(c.out, "%s: %s, up to event %d\n", b.Path, units.BytesSize(float64(b.Bytes)), b.Seq)
	return nil
}

package main

import (
	"context"
	"flag"
	"fmt"

	"github.com/docker/go-units"
)

func backupCommand() command {
	var force bool
	return command{
		name: "backup", args: "<file>",
		short: "copy the database, also while the daemon runs",
		flags: func(fs *flag.FlagSet) { fs.BoolVar(&force, "force", false, "replace an existing file") },
		run:   func(ctx context.Context, c *call) error { return backup(ctx, c, force) },
	}
}

// backup copies the database beside a running daemon or without one. It takes no lock:
// SQLite gives it one moment's view.
func backup(ctx context.Context, c *call, force bool) error {
	b, err := c.store.Backup(ctx, c.arg, force)
	if err != nil {
		return err
	}
	if c.asJSON {
		return printJSON(c.out, b)
	}
	fmt.Fprintf(c.out, "%s: %s, up to event %d\n", b.Path, units.BytesSize(float64(b.Bytes)), b.Seq)
	return nil
}

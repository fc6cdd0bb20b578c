package main

import (
	"context"
	"fmt"
	"io"

	"imagemanager.internal/internal/store"
)

func snapshotsCommand() command {
	return command{name: "snapshots", short: "list the active snapshots", run: listSnapshots}
}

func listSnapshots(ctx context.Context, c *call) error {
	list, err := c.store.Snapshots(ctx)
	if err != nil {
		return err
	}
	return printSnapshots(c.out, list, c.asJSON)
}

func printSnapshots(out io.Writer, list []store.Snapshot, asJSON bool) error {
	if asJSON {
		return printJSON(out, nonNil(list))
	}
	t := newTable(out, "DEVICE", "IMAGE", "KEY", "STATE", "PATH", "CREATED")
	for _, sn := range list {
		t.row(fmt.Sprint(sn.Device), fmt.Sprint(sn.Image), quoted(sn.Key), sn.State, sn.Path, ago(sn.CreatedAt))
	}
	return t.flush()
}

func snapshotCommand() command {
	return command{
		name: "snapshot", args: "<key|image>",
		short: "make one more snapshot of an image",
		run:   makeSnapshot,
	}
}

// makeSnapshot makes a further snapshot, beside a running daemon or without one.
func makeSnapshot(ctx context.Context, c *call) error {
	image, err := c.findActive(ctx, c.arg)
	if err != nil {
		return err
	}
	l, err := c.openBeside(ctx)
	if err != nil {
		return err
	}
	sn, err := l.host.Snapshot(ctx, image)
	if err != nil {
		return err
	}
	return printSnapshots(c.out, []store.Snapshot{sn}, c.asJSON)
}

package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"imagemanager.internal/internal/store"
)

func snapshotsCommand() *cobra.Command {
	var f filter
	cmd := withListing(&cobra.Command{
		Use:   "snapshots",
		Short: "List the active snapshots",
		Long:  "Snapshots lists the active snapshots, oldest first, with the path of each, ready to be mounted.",
		Example: `  consumer snapshots
  mount "$(consumer snapshots --latest --key debian.tar --json | jq -r '.[0].path')" /mnt`,
		Annotations: exits(3, 5),
		RunE:        looking(func(ctx context.Context, c *call) error { return listSnapshots(ctx, c, f) }),
	}, "names for rm")
	f.addKeys(cmd)
	f.addTo(cmd)
	return cmd
}

func listSnapshots(ctx context.Context, c *call, f filter) error {
	list, err := c.store.Snapshots(ctx)
	if err != nil {
		return err
	}
	return c.printSnapshots(pick(f, list, func(sn store.Snapshot) (string, string) { return sn.Key, sn.State }))
}

func (o *output) printSnapshots(list []store.Snapshot) error {
	switch {
	case o.asJSON:
		return printJSON(o.out, list)
	case o.quiet:
		return printIDs(o.out, list, func(sn store.Snapshot) string { return snapshotPrefix + fmt.Sprint(sn.Device) })
	}
	t := o.table("DEVICE", "IMAGE", "KEY", "STATE", "PATH", "CREATED").wideOnly("STATE")
	for _, sn := range list {
		t.row(fmt.Sprint(sn.Device), fmt.Sprint(sn.Image), quoted(sn.Key), sn.State, sn.Path, ago(sn.CreatedAt))
	}
	return t.flush()
}

func snapshotCommand() *cobra.Command {
	return completing(withTable(&cobra.Command{
		Use:   "snapshot <key|image>",
		Short: "Make one more snapshot of an image",
		Long: `Snapshot makes a further copy-on-write snapshot of an active image and prints its
path. The snapshots of an image share its blocks; what is written to one is seen
by no other. It works beside a running daemon or without one. "consumer help names"
says how else to name an image.`,
		Example: `  consumer snapshot images/debian.tar
  mount "$(consumer snapshot --json 3 | jq -r '.[0].path')" /mnt`,
		Annotations: exits(3, 4, 5),
		RunE:        withJournal(makeSnapshot),
	}), imageKeys, imageIDs)
}

// makeSnapshot makes a further snapshot, beside a running daemon or without one.
func makeSnapshot(ctx context.Context, c *call) error {
	image, err := c.findActive(ctx, c.arg())
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
	return c.printSnapshots([]store.Snapshot{sn})
}

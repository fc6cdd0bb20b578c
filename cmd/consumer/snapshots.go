package main

import (
	"context"
	"errors"
	"fmt"
	"os"

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
	var m mounting
	cmd := completing(withTable(&cobra.Command{
		Use:   "snapshot <key|image|snapshot>",
		Short: "Make one more snapshot of an image; --mount mounts it",
		Long: `Snapshot makes a further copy-on-write snapshot of an active image and prints its
path. The snapshots of an image share its blocks; what is written to one is seen
by no other. With --mount it is mounted as well, and "consumer umount" ends that; a
snapshot that is there already is mounted if it is named by its path or as
snapshot:ID. The root file system of the image is in rootfs there. The mount is
read-only without --writable, and neither set-uid bits nor device nodes mean
anything in it. It works beside a running daemon or without one. "consumer help
names" says how else to name an image.`,
		Example: `  consumer snapshot images/debian.tar
  consumer snapshot images/debian.tar --mount /mnt/debian
  consumer snapshot snapshot:42 --mount /mnt/debian --writable`,
		SuggestFor:  []string{"mount"},
		Annotations: exits(3, 4, 5),
		RunE:        withJournal(func(ctx context.Context, c *call) error { return makeSnapshot(ctx, c, m) }),
	}), imageKeys, imageIDs, snapshotNames)
	m.addTo(cmd)
	return cmd
}

// makeSnapshot makes a further snapshot, and mounts it if that is asked for. A failure
// leaves nothing behind.
func makeSnapshot(ctx context.Context, c *call, m mounting) error {
	if err := m.prepare(); err != nil {
		return err
	}
	if isSnapshot(c.arg()) {
		return c.mountExisting(ctx, m)
	}
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
	if err := c.cfg.mount(sn, m); err != nil {
		_, undo := l.host.RemoveSnapshot(context.WithoutCancel(ctx), sn)
		return errors.Join(err, undo)
	}
	return c.printMounted(sn, m)
}

// mountExisting mounts a snapshot that is there.
func (c *call) mountExisting(ctx context.Context, m mounting) error {
	if m.dir == "" {
		return &usageError{fmt.Errorf("%s is a snapshot already: --mount DIR mounts it", c.arg())}
	}
	sn, err := c.findSnapshot(ctx, c.arg())
	if err != nil {
		return err
	}
	if _, err := os.Stat(sn.Path); err != nil {
		return fmt.Errorf("snapshot %s is not active: it was removed, or the daemon still activates it, which "+
			"`consumer status` shows, or the pool is detached, which `consumer pool status` shows", sn.Path)
	}
	if err := c.cfg.mount(sn, m); err != nil {
		return err
	}
	return c.printMounted(sn, m)
}

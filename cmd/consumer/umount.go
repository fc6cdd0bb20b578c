package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
)

// errNotMounted is returned when no snapshot is mounted where one is to be unmounted.
var errNotMounted = errors.New("not mounted")

func umountCommand() *cobra.Command {
	var rm bool
	cmd := completing(withJSON(&cobra.Command{
		Use:   "umount <directory|snapshot>...",
		Short: "Unmount snapshots; --rm removes them as well",
		Long: `Umount ends the mounts of snapshots, each named by its directory, its path, or
snapshot:ID. If one is in use, the error names the processes. A directory that
"snapshot --mount" made is removed. What was written stays in the snapshot, unless
--rm removes it.`,
		Example: `  consumer umount /mnt/debian
  consumer umount --rm /mnt/debian`,
		SuggestFor:  []string{"unmount"},
		Annotations: exits(3, 4, 5),
		RunE:        withJournal(func(ctx context.Context, c *call) error { return umount(ctx, c, rm) }),
	}), snapshotNames)
	cmd.Flags().BoolVar(&rm, "rm", false, "remove the snapshots, with all that was written to them")
	return cmd
}

// umount ends the mounts of all that is named, and goes on after a failure.
func umount(ctx context.Context, c *call, rm bool) error {
	var errs []error
	var done []store.Snapshot
	for _, name := range c.args {
		sn, dirs, err := c.findMount(ctx, name)
		if err == nil {
			err = c.umountAll(sn, dirs)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		done = append(done, sn)
	}
	if rm && len(done) > 0 {
		errs = append(errs, c.removeSnapshots(ctx, done))
	}
	return errors.Join(errs...)
}

// umountAll ends the mounts of a snapshot.
func (c *call) umountAll(sn store.Snapshot, dirs []string) error {
	for _, dir := range dirs {
		if err := devmapper.Unmount(dir); err != nil {
			return err
		}
		if err := c.cfg.forgetMade(sn, dir); err != nil {
			return err
		}
		if !c.asJSON {
			fmt.Fprintf(c.out, "%s unmounted: it was snapshot %s of image %d (%s)\n", dir, sn.Path, sn.Image,
				quoted(sn.Key))
		}
	}
	if c.asJSON {
		return printJSON(c.out, map[string]any{"snapshot": sn, "unmounted": dirs})
	}
	return nil
}

// removeSnapshots removes snapshots as rm does.
func (c *call) removeSnapshots(ctx context.Context, list []store.Snapshot) error {
	l, err := c.openBeside(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, sn := range list {
		r, err := c.removal(ctx, snapshotPrefix+fmt.Sprint(sn.Device), false)
		if err == nil {
			err = r(ctx, l.host)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// findMount returns the snapshot with this name, or the one mounted at this directory,
// and the directories to unmount.
func (c *call) findMount(ctx context.Context, name string) (store.Snapshot, []string, error) {
	if isSnapshot(name) {
		sn, err := c.findSnapshot(ctx, name)
		if err == nil {
			dirs, err := devmapper.MountPoints(sn.Path)
			if err == nil && len(dirs) == 0 {
				err = fmt.Errorf("snapshot %s: %w", sn.Path, errNotMounted)
			}
			return sn, dirs, err
		}
		if !errors.Is(err, store.ErrNotFound) || strings.HasPrefix(name, snapshotPrefix) {
			return sn, nil, err
		}
	}
	return c.mountedAt(ctx, name)
}

// mountedAt returns the snapshot mounted at a directory. What others have mounted there
// is none of this program's.
func (c *call) mountedAt(ctx context.Context, name string) (store.Snapshot, []string, error) {
	dir, err := filepath.Abs(name)
	if err != nil {
		return store.Snapshot{}, nil, err
	}
	if target, err := filepath.EvalSymlinks(dir); err == nil {
		dir = target
	}
	all, err := c.store.Snapshots(ctx)
	if err != nil {
		return store.Snapshot{}, nil, err
	}
	for _, sn := range all {
		dirs, err := devmapper.MountPoints(sn.Path)
		if err != nil || slices.Contains(dirs, dir) {
			return sn, []string{dir}, err
		}
	}
	return store.Snapshot{}, nil, fmt.Errorf("%s: %w: no snapshot of this state directory is there", dir, errNotMounted)
}

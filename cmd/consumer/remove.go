package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/store"
)

func rmCommand() *cobra.Command {
	var force bool
	cmd := completing(withJSON(&cobra.Command{
		Use:   "rm <key|image|snapshot>...",
		Short: "Remove images, or single snapshots by their path or snapshot:ID",
		Long: `Rm removes images, each with its device and its archive, or single snapshots. What is
open or mounted is not removed, and an image with snapshots only by --force. If
one of the names is wrong, nothing is removed; a thing that is in use keeps none
of the others. The journal keeps the history. It works beside a running daemon or
without one; to remove something again is not an error. "consumer help names" says
how else to name an image.`,
		Example: `  consumer rm images/debian.tar
  consumer rm --force 17 18
  consumer rm snapshot:42`,
		SuggestFor:  []string{"remove", "delete", "del"},
		Annotations: exits(3, 4, 5),
		RunE:        withJournal(func(ctx context.Context, c *call) error { return remove(ctx, c, force) }),
	}), imageKeys, imageIDs, snapshotNames)
	cmd.Flags().BoolVar(&force, "force", false,
		"remove an image's snapshots with it; what is open or mounted is refused all the same")
	return cmd
}

// removal removes what one argument names.
type removal func(context.Context, *provision.Host) error

// remove removes all that is named, beside a running daemon or without one. To remove
// something again is not an error: an interrupted command is simply repeated.
func remove(ctx context.Context, c *call, force bool) error {
	var removals []removal
	for _, name := range c.args {
		r, err := c.removal(ctx, name, force)
		if err != nil {
			return err
		}
		removals = append(removals, r)
	}
	l, err := c.openBeside(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range removals {
		errs = append(errs, r(ctx, l.host))
	}
	return errors.Join(errs...)
}

// removal finds what a name stands for.
func (c *call) removal(ctx context.Context, name string, force bool) (removal, error) {
	if isSnapshot(name) {
		sn, err := c.findSnapshot(ctx, name)
		return func(ctx context.Context, h *provision.Host) error {
			r, err := h.RemoveSnapshot(ctx, sn)
			if err != nil {
				return err
			}
			return c.printRemoved(r, fmt.Sprintf("snapshot %s of image %d (%s)", sn.Path, r.Image, quoted(r.Key)))
		}, err
	}
	img, err := c.findOne(ctx, name)
	return func(ctx context.Context, h *provision.Host) error {
		if err := c.endCutOff(ctx, img); err != nil {
			return err
		}
		r, err := h.RemoveImage(ctx, img.ID, force)
		if err != nil {
			return err
		}
		return c.printRemoved(r, fmt.Sprintf("image %d (%s)", r.Image, quoted(r.Key)))
	}, err
}

// endCutOff ends the attempt of a dead daemon. While a daemon runs, the attempt is its
// own.
func (s *system) endCutOff(ctx context.Context, img store.Image) error {
	if img.State != store.StatePending || !img.Running {
		return nil
	}
	alone := &system{cfg: s.cfg, log: s.log}
	err := alone.lockState(daemonLock)
	if errors.Is(err, errLocked) {
		return nil
	}
	if err == nil {
		_, err = s.store.RecordCutOff(ctx, img.ID)
	}
	return errors.Join(err, alone.Close())
}

// printRemoved says what was removed.
func (c *call) printRemoved(r provision.Removed, what string) error {
	switch {
	case c.asJSON:
		return printJSON(c.out, r)
	case r.Already:
		fmt.Fprintf(c.out, "%s was removed already\n", what)
	case len(r.Devices) == 0:
		fmt.Fprintf(c.out, "%s removed\n", what)
	default:
		fmt.Fprintf(c.out, "%s removed, devices %v\n", what, r.Devices)
	}
	return nil
}

// snapshotPrefix stands before the device id of a snapshot. A bare number is an image's
// id.
const snapshotPrefix = "snapshot:"

// isSnapshot reports whether the argument names a snapshot: by its path, or as
// snapshot:ID. Anything else is an image's id or key. No key begins with a slash.
func isSnapshot(arg string) bool {
	return strings.HasPrefix(arg, "/") || strings.HasPrefix(arg, snapshotPrefix)
}

// findSnapshot returns the snapshot with this path, or with the device id shown by
// `consumer snapshots`.
func (s *system) findSnapshot(ctx context.Context, name string) (store.Snapshot, error) {
	text, byID := strings.CutPrefix(name, snapshotPrefix)
	if !byID {
		return s.store.SnapshotByPath(ctx, name)
	}
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil || id <= 0 {
		return store.Snapshot{}, &usageError{fmt.Errorf("%q is not snapshot:ID with a device id", name)}
	}
	return s.store.SnapshotByID(ctx, id)
}

// findOne returns the one image with this name. Of several versions of a key it is
// the one with something kept. If there are more, the operator decides.
func (s *system) findOne(ctx context.Context, name string) (store.Image, error) {
	images, err := s.find(ctx, name)
	if err != nil {
		return store.Image{}, err
	}
	var kept []store.Image
	var ids []int64
	for _, img := range images {
		if !img.State.Refused() {
			kept, ids = append(kept, img), append(ids, img.ID)
		}
	}
	switch len(kept) {
	case 0:
		return images[len(images)-1], nil
	case 1:
		return kept[0], nil
	}
	return store.Image{}, &usageError{fmt.Errorf("key %q has the images %d: name one by its id", name, ids)}
}

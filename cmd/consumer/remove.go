package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"

	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/store"
)

// cmdRm removes an image or one snapshot, beside a running daemon or without one. To
// remove it again is not an error: an interrupted command is simply repeated.
func cmdRm(ctx context.Context, args []string, out io.Writer) error {
	var force *bool
	more := func(fs *flag.FlagSet) {
		force = fs.Bool("force", false,
			"remove an image's snapshots with it; what is open or mounted is refused all the same")
	}
	return showMore(ctx, "rm", "<key|image|snapshot>", args, out, more,
		func(s *system, fs *flag.FlagSet, asJSON bool) error {
			snapshot, sn, err := s.findSnapshot(ctx, fs)
			if err != nil {
				return err
			}
			var img store.Image
			if !snapshot {
				if img, err = s.findOne(ctx, fs); err != nil {
					return err
				}
			}
			l, err := s.openBeside(ctx)
			if err != nil {
				return err
			}
			if !snapshot {
				if err := s.endCutOff(ctx, img); err != nil {
					return err
				}
			}
			var r provision.Removed
			if snapshot {
				r, err = l.host.RemoveSnapshot(ctx, sn)
			} else {
				r, err = l.host.RemoveImage(ctx, img.ID, *force)
			}
			if err != nil {
				return err
			}
			return printRemoved(out, r, snapshot, sn, asJSON)
		})
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

func printRemoved(out io.Writer, r provision.Removed, snapshot bool, sn store.Snapshot, asJSON bool) error {
	if asJSON {
		return printJSON(out, r)
	}
	what := fmt.Sprintf("image %d (%s)", r.Image, quoted(r.Key))
	if snapshot {
		what = fmt.Sprintf("snapshot %s of %s", sn.Path, what)
	}
	if r.Already {
		fmt.Fprintf(out, "%s was removed already\n", what)
		return nil
	}
	if len(r.Devices) == 0 {
		fmt.Fprintf(out, "%s removed\n", what)
		return nil
	}
	fmt.Fprintf(out, "%s removed, devices %v\n", what, r.Devices)
	return nil
}

// findSnapshot returns the snapshot named by the argument: by its path, or as snapshot:ID
// with the device id shown by `consumer snapshots`. A bare number is an image's id, and
// anything else a key.
func (s *system) findSnapshot(ctx context.Context, fs *flag.FlagSet) (is bool, sn store.Snapshot, err error) {
	if fs.NArg() != 1 {
		return false, sn, &usageError{errors.New(
			"rm takes one key, image id, snapshot path or snapshot:ID; flags come first")}
	}
	name := fs.Arg(0)
	if strings.HasPrefix(name, "/") {
		sn, err = s.store.SnapshotByPath(ctx, name)
		return true, sn, err
	}
	if text, ok := strings.CutPrefix(name, "snapshot:"); ok {
		id, err := strconv.ParseInt(text, 10, 64)
		if err != nil || id <= 0 {
			return true, sn, &usageError{fmt.Errorf("%q is not snapshot:ID with a device id", name)}
		}
		sn, err = s.store.SnapshotByID(ctx, id)
		return true, sn, err
	}
	return false, sn, nil
}

// findOne returns the one image named by the argument. Of several versions of a key it is
// the one with something kept. If there are more, the operator decides.
func (s *system) findOne(ctx context.Context, fs *flag.FlagSet) (store.Image, error) {
	images, err := s.find(ctx, fs)
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
	return store.Image{}, &usageError{fmt.Errorf("key %q has the images %d: name one by its id", fs.Arg(0), ids)}
}

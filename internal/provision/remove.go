package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"imagemanager.internal/internal/store"
)

// errNotRemoved is returned if an image or a snapshot cannot be removed now.
var errNotRemoved = errors.New("not removed")

// Removed says what a removal did.
type Removed struct {
	Image   int64   `json:"image_id"`
	Key     string  `json:"s3_key"`
	Devices []int64 `json:"devices"`         // removed by this call
	Already bool    `json:"already_removed"` // there was nothing left to do
}

// RemoveImage removes an image at rest: its snapshots (only with force), its device, its
// archive and its manifest. If anything is open or mounted, nothing is removed. The
// removal is in the journal before anything is undone, so the next start, or a second
// call, finishes a removal cut off in between. The caller holds the pool's lock; a daemon
// may run.
func (h *Host) RemoveImage(ctx context.Context, image int64, force bool) (Removed, error) {
	img, err := h.store.Image(ctx, image)
	if err != nil {
		return Removed{}, err
	}
	r := Removed{Image: img.ID, Key: img.Key, Devices: []int64{}, Already: img.State == store.StateRemoved}
	devices, err := h.store.DevicesOf(ctx, image)
	if err != nil {
		return r, err
	}
	tree := img.Tree
	if !r.Already {
		if err := h.mayRemove(ctx, img, force); err != nil {
			return r, err
		}
		if img, err = h.recordRemoval(devices, func() (store.Image, error) {
			return h.store.Remove(ctx, store.Attempt{Image: image, N: img.Attempt}, "by an operator")
		}); err != nil {
			return r, h.explainRefusal(ctx, image, err)
		}
		h.record.removed(img, "").Msg("image removed")
	}
	// The devices are the last to go: once the journal has none, the removal is complete
	// and the image may be submitted again.
	err = h.archives.Remove(ArchiveName(image))
	if tree != nil {
		err = errors.Join(err, h.Manifests.Remove(ctx, h.Manifests.Name(tree.Digest)))
	}
	if err != nil {
		return r, err
	}
	return r, h.removeDevices(ctx, &r, devices)
}

// removeDevices destroys devices, newest first: a snapshot before its origin.
func (h *Host) removeDevices(ctx context.Context, r *Removed, devices []store.Device) error {
	for i := len(devices) - 1; i >= 0; i-- {
		if err := h.Devices.Destroy(ctx, devices[i]); err != nil {
			return fmt.Errorf("device %d: %w; the removal is recorded: remove again to finish it", devices[i].ID, err)
		}
		r.Devices, r.Already = append(r.Devices, devices[i].ID), false
	}
	return nil
}

// RemoveSnapshot removes one snapshot of an active image unless it is open or mounted.
// The image stays active, even without a snapshot.
func (h *Host) RemoveSnapshot(ctx context.Context, sn store.Snapshot) (Removed, error) {
	img, err := h.store.Image(ctx, sn.Image)
	if err != nil {
		return Removed{}, err
	}
	r := Removed{Image: img.ID, Key: img.Key, Devices: []int64{}, Already: true}
	devices, err := h.store.DevicesOf(ctx, sn.Image)
	if err != nil {
		return r, err
	}
	devices = slices.DeleteFunc(devices, func(d store.Device) bool { return d.ID != sn.Device })
	if len(devices) > 0 && img.State != store.StateActive && img.State != store.StateRemoved {
		return r, fmt.Errorf("snapshot %s: %w: its image %d is %s: wait for its end",
			sn.Path, errNotRemoved, img.ID, img.State)
	}
	if len(devices) > 0 && devices[0].State == store.DeviceReady && img.State == store.StateActive {
		if img, err = h.recordRemoval(devices, func() (store.Image, error) {
			return h.store.RemoveSnapshot(ctx, store.Attempt{Image: img.ID, N: img.Attempt}, devices[0])
		}); err != nil {
			return r, h.explainRefusal(ctx, sn.Image, err)
		}
		h.record.removed(img, store.StageActivate).Int64("device_id", sn.Device).Str("path", sn.Path).
			Msg("snapshot removed")
	}
	return r, h.removeDevices(ctx, &r, devices)
}

// mayRemove refuses an image with an attempt under way, and without force one with
// snapshots.
func (h *Host) mayRemove(ctx context.Context, img store.Image, force bool) error {
	if img.State == store.StatePending && img.Running {
		return fmt.Errorf("image %d: %w: an attempt is under way, at %s: wait for its end",
			img.ID, errNotRemoved, img.Stage)
	}
	snapshots, err := h.store.SnapshotsOf(ctx, img.ID)
	if err != nil || len(snapshots) == 0 || force {
		return err
	}
	var paths []string
	for _, sn := range snapshots {
		paths = append(paths, sn.Path)
	}
	return fmt.Errorf("image %d: %w: it has %d snapshots, %q: remove them first, or all with --force",
		img.ID, errNotRemoved, len(paths), paths)
}

// recordRemoval deactivates the devices and then records their removal. The kernel
// refuses to deactivate what is open or mounted, and nobody can open what is inactive, so
// there is no moment between the look and the act. If anything is in use nothing is
// recorded, and the snapshots are active as before.
func (h *Host) recordRemoval(devices []store.Device, record func() (store.Image, error)) (store.Image, error) {
	s, err := h.pool.Status()
	if err == nil {
		err = CheckWritable(s)
	}
	if err != nil {
		return store.Image{}, err
	}
	if err := h.Devices.deactivateAll(devices); err != nil {
		return store.Image{}, errors.Join(err, h.Devices.reactivateAll(devices))
	}
	img, err := record()
	switch {
	case err == nil:
		return img, nil
	case errors.Is(err, store.ErrOrder) || errors.Is(err, store.ErrFenced):
		return img, err // the daemon was faster: it found them inactive, and activates them
	}
	return store.Image{}, errors.Join(err, h.Devices.reactivateAll(devices))
}

// explainRefusal explains the journal's refusal of a removal: the image went on since it
// was looked at.
func (h *Host) explainRefusal(ctx context.Context, image int64, err error) error {
	if !errors.Is(err, store.ErrOrder) && !errors.Is(err, store.ErrFenced) {
		return fmt.Errorf("image %d: %w: %w", image, errNotRemoved, err)
	}
	img, lookErr := h.store.Image(ctx, image)
	return errors.Join(fmt.Errorf("image %d: %w: it is %s now: %w", image, errNotRemoved, img.State, err), lookErr)
}

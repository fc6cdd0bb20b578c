package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/rs/zerolog"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
)

// Devices destroys the thin devices of images.
type Devices struct {
	store *store.Store
	pool  *devmapper.Pool
	log   zerolog.Logger
}

// HandedOut reports whether a device is a snapshot in the hands of a user. It stays
// whatever verdict its image gets: only an operator removes it.
func HandedOut(d store.Device) bool {
	return d.Kind == store.DeviceKindSnapshot && d.State == store.DeviceReady
}

// ofImage returns the image's own device. If it is not ready, the error is ErrResultLost.
func (dv *Devices) ofImage(ctx context.Context, img store.Image) (store.Device, error) {
	devices, err := dv.store.DevicesOf(ctx, img.ID)
	if err != nil {
		return store.Device{}, err
	}
	return own(devices, img)
}

// own is ofImage for devices read before.
func own(devices []store.Device, img store.Image) (store.Device, error) {
	if img.Tree == nil {
		return store.Device{}, fmt.Errorf("%w: no device recorded", ErrResultLost)
	}
	for _, d := range devices {
		if d.ID == img.Tree.Device && d.State == store.DeviceReady {
			return d, nil
		}
	}
	return store.Device{}, fmt.Errorf("%w: device %d", ErrResultLost, img.Tree.Device)
}

// releaseForeignID gives up a reserved id if the pool has it already. The device there is
// not in our journal, so it is not ours to remove. Other errors it returns as they are.
func (dv *Devices) releaseForeignID(ctx context.Context, d store.Device, err error) error {
	if !errors.Is(err, devmapper.ErrExists) {
		return err
	}
	return errors.Join(fmt.Errorf("thin device %d is in the pool already and not in the journal: %w", d.ID, err),
		dv.store.SetDeviceState(ctx, d.ID, store.DeviceGone))
}

// destroyMatching destroys the image's matching devices, newest first: a snapshot before
// its origin.
func (dv *Devices) destroyMatching(ctx context.Context, image int64, match func(store.Device) bool) error {
	devices, err := dv.store.DevicesOf(ctx, image)
	if err != nil {
		return err
	}
	var errs []error
	for i := len(devices) - 1; i >= 0; i-- {
		if match(devices[i]) {
			errs = append(errs, dv.Destroy(ctx, devices[i]))
		}
	}
	return errors.Join(errs...)
}

// Destroy removes one device. Its order survives a crash anywhere: the device is marked,
// discarded (nothing else gives a loop device's backing file its space back),
// deactivated, deleted from the pool, and only then gone from the journal. Every step may
// find its work done.
func (dv *Devices) Destroy(ctx context.Context, d store.Device) error {
	id := devmapper.ID(d.ID)
	err := dv.store.SetDeviceState(ctx, d.ID, store.DeviceDeleting)
	if store.Unwritable(err) && d.Kind == store.DeviceKindImage && !d.State.Verified() {
		// This very device may fill the disk. Nothing on it is of any use, so it may go
		// before the journal says so.
		dv.discard(d)
		err = dv.store.SetDeviceState(ctx, d.ID, store.DeviceDeleting)
	}
	if err != nil {
		return err
	}
	dv.discard(d)
	if err := dv.pool.Deactivate(id); err != nil {
		return err
	}
	if err := dv.pool.Delete(id); err != nil && !errors.Is(err, devmapper.ErrNotFound) {
		return err
	}
	if err := dv.store.SetDeviceState(ctx, d.ID, store.DeviceGone); err != nil {
		return err
	}
	dv.log.Info().Int64("image_id", d.Image).Int64("device_id", d.ID).Str("device_state", string(store.DeviceGone)).
		Msg("device removed")
	return nil
}

// discard gives a device's space back to the pool, and to the file system under it.
func (dv *Devices) discard(d store.Device) {
	id := devmapper.ID(d.ID)
	kind := devmapper.KindImage
	if d.Kind == store.DeviceKindSnapshot {
		kind = devmapper.KindSnapshot
	}
	_, err := dv.pool.Activate(id, kind, d.Bytes, false)
	if err == nil {
		err = dv.pool.Discard(id)
	}
	if err != nil && !errors.Is(err, devmapper.ErrNotFound) {
		dv.log.Warn().Err(err).Int64("device_id", d.ID).
			Msg("device not discarded; its space stays in the backing file")
	}
}

// reactivateAll activates the snapshots among the devices.
func (dv *Devices) reactivateAll(devices []store.Device) error {
	var errs []error
	for _, d := range devices {
		if HandedOut(d) {
			_, err := dv.pool.Activate(devmapper.ID(d.ID), devmapper.KindSnapshot, d.Bytes, false)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// deactivateAll begins with the open ones: it fails on them before it has
// touched the others.
func (dv *Devices) deactivateAll(devices []store.Device) error {
	open := map[int64]int{}
	for _, d := range devices {
		a, err := dv.pool.FindActive(devmapper.ID(d.ID))
		if err != nil && !errors.Is(err, devmapper.ErrNotFound) {
			return err
		}
		open[d.ID] = a.Open
	}
	devices = slices.Clone(devices)
	slices.SortStableFunc(devices, func(a, b store.Device) int { return open[b.ID] - open[a.ID] })
	for _, d := range devices {
		if err := dv.pool.Deactivate(devmapper.ID(d.ID)); err != nil {
			return err
		}
	}
	return nil
}

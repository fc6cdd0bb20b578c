package provision

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/span"
	"imagemanager.internal/internal/store"
)

// Activate makes the image's snapshot and activates it. The origin is sealed and
// inactive, so nothing has to be suspended.
func (h *Host) Activate(ctx context.Context, t *Task) error {
	devices, err := h.store.DevicesOf(ctx, t.Image.ID)
	if err != nil {
		return err
	}
	if stands, err := h.reactivate(ctx, t, devices); stands || err != nil {
		return err
	}
	return h.snapshot(ctx, t, devices)
}

// reactivate activates the snapshots among the image's devices. Those lost by the pool
// are struck from the journal; nothing is done to their ids.
func (h *Host) reactivate(ctx context.Context, t *Task, devices []store.Device) (stands bool, err error) {
	var errs []error
	for _, d := range devices {
		if !HandedOut(d) {
			continue
		}
		_, err := h.pool.Activate(devmapper.ID(d.ID), devmapper.KindSnapshot, d.Bytes, false)
		if errors.Is(err, devmapper.ErrNotFound) {
			h.record.Log(t).Error().Err(err).Int64("device_id", d.ID).Msg("the pool has lost a snapshot")
			errs = append(errs, h.record.advance(ctx, t, &d, store.DeviceGone))
			continue
		}
		errs, stands = append(errs, err), true
	}
	if err := errors.Join(errs...); err != nil || !stands {
		return false, err
	}
	return true, h.record.HandOff(ctx, t, "the snapshot is there")
}

// snapshot makes one more snapshot of the image's own device, which is one of the
// devices.
func (h *Host) snapshot(ctx context.Context, t *Task, devices []store.Device) error {
	origin, err := own(devices, t.Image)
	if err != nil {
		return err
	}
	d, err := h.record.reserve(ctx, t, store.Device{
		Kind: store.DeviceKindSnapshot, Bytes: origin.Bytes, Origin: origin.ID, FSUUID: origin.FSUUID,
	})
	if err != nil {
		return err
	}
	if err := h.pool.CreateSnapshot(devmapper.ID(d.ID), devmapper.ID(origin.ID)); err != nil {
		if errors.Is(err, devmapper.ErrNotFound) {
			return h.recordOriginLoss(ctx, t, origin, err)
		}
		return h.Devices.releaseForeignID(ctx, d, err)
	}
	made := time.Now()
	path, err := h.pool.Activate(devmapper.ID(d.ID), devmapper.KindSnapshot, d.Bytes, false)
	if err != nil {
		return err
	}
	_, committed := span.Start(ctx, spanCommit)
	img, err := h.store.FinishActivate(ctx, t.Attempt, d, made, path)
	committed(err)
	if err != nil {
		return err
	}
	d.State = store.DeviceCreated
	h.record.stepped(t, d)
	trace.SpanFromContext(ctx).SetAttributes(attribute.Int64("device.id", d.ID), attribute.String("device.path", path))
	h.record.done(t, img).Str("path", path).Msg("snapshot active")
	return nil
}

// recordOriginLoss notes the loss of the image's device by the pool: the next attempt
// unpacks again.
func (h *Host) recordOriginLoss(ctx context.Context, t *Task, origin store.Device, cause error) error {
	return errors.Join(fmt.Errorf("%w: device %d: %w", ErrResultLost, origin.ID, cause),
		h.record.advance(ctx, t, &origin, store.DeviceGone))
}

// UndoActivate destroys what an attempt made short of an active snapshot.
func (h *Host) UndoActivate(ctx context.Context, t *Task) error {
	return h.Devices.destroyMatching(ctx, t.Image.ID, func(d store.Device) bool {
		return d.Kind == store.DeviceKindSnapshot && d.State != store.DeviceReady
	})
}

// CheckActivate checks that the image's snapshots are active under our UUID. An active
// image without snapshots passes: an operator removed them.
func (h *Host) CheckActivate(ctx context.Context, t *Task) error {
	rows, err := h.store.SnapshotsOf(ctx, t.Image.ID)
	if err != nil {
		return err
	}
	for _, sn := range rows {
		d, err := h.pool.FindActive(devmapper.ID(sn.Device))
		switch {
		case errors.Is(err, devmapper.ErrNotFound), err == nil && d.HalfCreated:
			return fmt.Errorf("%w: snapshot %s is not active", ErrResultLost, sn.Path)
		case err != nil:
			return err
		}
	}
	return nil
}

// Snapshot makes a further snapshot of an active image. A failure leaves the image and
// its other snapshots as they were.
func (h *Host) Snapshot(ctx context.Context, image int64) (store.Snapshot, error) {
	img, err := h.store.Image(ctx, image)
	if err != nil {
		return store.Snapshot{}, err
	}
	if img.State != store.StateActive {
		return store.Snapshot{}, fmt.Errorf("image %d is %s: only an active image has snapshots", image, img.State)
	}
	t := &Task{Image: img}
	if err := h.record.Begin(ctx, t, store.StageActivate); err != nil {
		return store.Snapshot{}, err
	}
	devices, err := h.store.DevicesOf(ctx, image)
	if err == nil {
		err = h.snapshot(ctx, t, devices)
	}
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
		defer cancel()
		err = errors.Join(err, h.UndoActivate(ctx, t))
		h.record.Undo(ctx, t, err.Error())
		return store.Snapshot{}, err
	}
	rows, err := h.store.SnapshotsOf(ctx, image)
	if err != nil || len(rows) == 0 {
		return store.Snapshot{}, errors.Join(err, fmt.Errorf("%w: no snapshot recorded", ErrResultLost))
	}
	return rows[len(rows)-1], nil
}

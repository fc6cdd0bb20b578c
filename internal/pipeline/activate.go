package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
)

// activate makes the image's snapshot and activates it. The origin is sealed and
// inactive, so nothing has to be suspended.
func (p *Pipeline) activate(ctx context.Context, job *Job) error {
	if stands, err := p.reactivate(ctx, job); stands || err != nil {
		return err
	}
	return p.snapshot(ctx, job)
}

// reactivate activates the snapshots that the image has already. Those that the pool has
// lost are forgotten; nothing is done to their ids.
func (p *Pipeline) reactivate(ctx context.Context, job *Job) (stands bool, err error) {
	devices, err := p.Store.DevicesOf(ctx, job.image.ID)
	if err != nil {
		return false, err
	}
	var errs []error
	for _, d := range devices {
		if !handedOut(d) {
			continue
		}
		_, err := p.Pool.Activate(devmapper.ID(d.ID), devmapper.KindSnapshot, d.Bytes, false)
		if errors.Is(err, devmapper.ErrNotFound) {
			p.logJob(job).Error().Err(err).Int64("device_id", d.ID).Msg("the pool has lost a snapshot")
			errs = append(errs, p.advance(ctx, job, &d, store.DeviceGone, nil))
			continue
		}
		errs, stands = append(errs, err), true
	}
	if err := errors.Join(errs...); err != nil || !stands {
		return false, err
	}
	return true, p.handOff(ctx, job, "the snapshot is there")
}

// snapshot makes one more snapshot of the image's device.
func (p *Pipeline) snapshot(ctx context.Context, job *Job) error {
	began := time.Now()
	origin, err := p.imageDevice(ctx, job)
	if err != nil {
		return err
	}
	d, err := p.Store.Reserve(ctx, job.attempt,
		store.Device{Kind: store.DeviceKindSnapshot, Bytes: origin.Bytes, Origin: origin.ID, FSUUID: origin.FSUUID})
	if err != nil {
		return err
	}
	if err := p.Pool.CreateSnapshot(devmapper.ID(d.ID), devmapper.ID(origin.ID)); err != nil {
		if errors.Is(err, devmapper.ErrNotFound) {
			return p.originLost(ctx, job, origin, err)
		}
		return p.taken(ctx, d, err)
	}
	if err := p.advance(ctx, job, &d, store.DeviceCreated, nil); err != nil {
		return err
	}
	path, err := p.Pool.Activate(devmapper.ID(d.ID), devmapper.KindSnapshot, d.Bytes, false)
	if err != nil {
		return err
	}
	img, err := p.Store.Activated(ctx, job.attempt, d, path)
	if err != nil {
		return err
	}
	p.ended(job, img, began).Int64("device_id", d.ID).Str("path", path).Msg("snapshot active")
	return nil
}

// originLost notes that the pool does not have the image's device: the next attempt
// unpacks again.
func (p *Pipeline) originLost(ctx context.Context, job *Job, origin store.Device, cause error) error {
	return errors.Join(fmt.Errorf("%w: device %d: %w", errLost, origin.ID, cause),
		p.advance(ctx, job, &origin, store.DeviceGone, nil))
}

// undoActivate removes what an attempt made short of an active snapshot.
func (p *Pipeline) undoActivate(ctx context.Context, job *Job) error {
	return p.dropDevices(ctx, job, func(d store.Device) bool {
		return d.Kind == store.DeviceKindSnapshot && d.State != store.DeviceReady
	})
}

// snapshotHolds checks that the image's snapshots are active under our UUID. An active
// image without any holds: only an operator's removal of its snapshots leaves it so.
func (p *Pipeline) snapshotHolds(ctx context.Context, job *Job) error {
	rows, err := p.Store.SnapshotsOf(ctx, job.image.ID)
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		return nil
	}
	active, err := p.Pool.Active()
	if err != nil {
		return err
	}
	have := map[devmapper.ID]bool{}
	for _, d := range active {
		have[d.ID] = !d.HalfCreated
	}
	for _, sn := range rows {
		if !have[devmapper.ID(sn.Device)] {
			return fmt.Errorf("%w: snapshot %s is not active", errLost, sn.Path)
		}
	}
	return nil
}

// Snapshot makes a further snapshot of an active image and returns it. It is what
// `consumer snapshot` does.
func (p *Pipeline) Snapshot(ctx context.Context, image int64) (store.Snapshot, error) {
	img, err := p.Store.Image(ctx, image)
	if err != nil {
		return store.Snapshot{}, err
	}
	if img.State != store.StateActive {
		return store.Snapshot{}, fmt.Errorf("image %d is %s: only an active image has snapshots", image, img.State)
	}
	job := &Job{image: img}
	if err := p.begin(ctx, job, store.StageActivate); err != nil {
		return store.Snapshot{}, err
	}
	if err := p.snapshot(ctx, job); err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		err = errors.Join(err, p.undoActivate(ctx, job))
		p.conclude(ctx, job, p.judge(job, err))
		return store.Snapshot{}, err
	}
	rows, err := p.Store.SnapshotsOf(ctx, image)
	if err != nil || len(rows) == 0 {
		return store.Snapshot{}, errors.Join(err, fmt.Errorf("%w: no snapshot recorded", errLost))
	}
	return rows[len(rows)-1], nil
}

package pipeline

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
)

// errKept says why an image is not removed now.
var errKept = errors.New("not removed")

// Removed says what a removal did.
type Removed struct {
	Image   int64   `json:"image_id"`
	Key     string  `json:"s3_key"`
	Devices []int64 `json:"devices"`         // removed by this call
	Already bool    `json:"already_removed"` // there was nothing left to do
}

// RemoveImage removes an image that nobody works on: its snapshots, which only force
// allows, its device, its archive and its manifest. What is open or mounted is never
// removed: then nothing is. The removal is in the journal before anything is undone, so
// that the next start, or a second call, finishes one that was cut off. The caller holds
// the pool's lock; a daemon may run.
func (p *Pipeline) RemoveImage(ctx context.Context, image int64, force bool) (Removed, error) {
	img, err := p.Store.Image(ctx, image)
	if err != nil {
		return Removed{}, err
	}
	r := Removed{Image: img.ID, Key: img.Key, Devices: []int64{}, Already: img.State == store.StateRemoved}
	devices, err := p.Store.DevicesOf(ctx, image)
	if err != nil {
		return r, err
	}
	tree := img.Tree
	if !r.Already {
		if err := p.mayRemove(ctx, img, force); err != nil {
			return r, err
		}
		if img, err = p.recordRemoval(devices, func() (store.Image, error) {
			return p.Store.Remove(ctx, store.Attempt{Image: image, N: img.Attempt}, "by an operator")
		}); err != nil {
			return r, p.kept(ctx, image, err)
		}
		p.event(&Job{image: img}, store.EventRemoved, "").Msg("image removed")
	}
	// The devices are the last to go: once the journal has none, the removal is complete
	// and the image may be submitted again.
	err = p.Downloader.Remove(blobName(image))
	if tree != nil {
		err = errors.Join(err, p.removeManifest(ctx, filepath.Base(p.manifestPath(tree.Digest))))
	}
	if err != nil {
		return r, err
	}
	return r, p.removeDevices(ctx, &r, devices)
}

// removeDevices drops devices, newest first: a snapshot before its origin.
func (p *Pipeline) removeDevices(ctx context.Context, r *Removed, devices []store.Device) error {
	for i := len(devices) - 1; i >= 0; i-- {
		if err := p.drop(ctx, devices[i]); err != nil {
			return fmt.Errorf("device %d: %w; the removal is recorded: remove again to finish it", devices[i].ID, err)
		}
		r.Devices, r.Already = append(r.Devices, devices[i].ID), false
	}
	return nil
}

// RemoveSnapshot removes one snapshot of an active image unless it is open or mounted.
// The image stays active, even without a snapshot.
func (p *Pipeline) RemoveSnapshot(ctx context.Context, sn store.Snapshot) (Removed, error) {
	img, err := p.Store.Image(ctx, sn.Image)
	if err != nil {
		return Removed{}, err
	}
	r := Removed{Image: img.ID, Key: img.Key, Devices: []int64{}, Already: true}
	devices, err := p.Store.DevicesOf(ctx, sn.Image)
	if err != nil {
		return r, err
	}
	devices = slices.DeleteFunc(devices, func(d store.Device) bool { return d.ID != sn.Device })
	if len(devices) > 0 && img.State != store.StateActive && img.State != store.StateRemoved {
		return r, fmt.Errorf("snapshot %s: %w: its image %d is %s: wait for its end",
			sn.Path, errKept, img.ID, img.State)
	}
	if len(devices) > 0 && devices[0].State == store.DeviceReady && img.State == store.StateActive {
		if img, err = p.recordRemoval(devices, func() (store.Image, error) {
			return p.Store.RemoveSnapshot(ctx, store.Attempt{Image: img.ID, N: img.Attempt}, devices[0])
		}); err != nil {
			return r, p.kept(ctx, sn.Image, err)
		}
		p.event(&Job{image: img}, store.EventRemoved, store.StageActivate).Int64("device_id", sn.Device).Str("path", sn.Path).
			Msg("snapshot removed")
	}
	return r, p.removeDevices(ctx, &r, devices)
}

// mayRemove refuses an image that is on its way, or has snapshots that nobody allowed to
// be removed with it.
func (p *Pipeline) mayRemove(ctx context.Context, img store.Image, force bool) error {
	if img.State == store.StatePending && img.Running {
		return fmt.Errorf("image %d: %w: an attempt is under way, at %s: wait for its end", img.ID, errKept, img.Stage)
	}
	snapshots, err := p.Store.SnapshotsOf(ctx, img.ID)
	if err != nil || len(snapshots) == 0 || force {
		return err
	}
	var paths []string
	for _, sn := range snapshots {
		paths = append(paths, sn.Path)
	}
	return fmt.Errorf("image %d: %w: it has %d snapshots, %q: remove them first, or all with --force",
		img.ID, errKept, len(paths), paths)
}

// recordRemoval deactivates the devices and then records their removal. The kernel
// refuses to deactivate what is open or mounted, and what is inactive nobody can open:
// there is no moment between the look and the act. If anything is in use nothing is
// recorded, and the snapshots are as before.
func (p *Pipeline) recordRemoval(devices []store.Device, record func() (store.Image, error)) (store.Image, error) {
	s, err := p.Pool.Status()
	if err == nil {
		err = cannotChange(s)
	}
	if err != nil {
		return store.Image{}, err
	}
	if err = p.deactivateAll(devices); err == nil {
		var img store.Image
		if img, err = record(); err == nil || errors.Is(err, store.ErrOrder) || errors.Is(err, store.ErrFenced) {
			return img, err // refused: the daemon was faster, found them inactive, and activates them
		}
	}
	errs := []error{err}
	for _, d := range devices {
		if d.Kind == store.DeviceKindSnapshot && d.State == store.DeviceReady {
			_, err := p.Pool.Activate(devmapper.ID(d.ID), devmapper.KindSnapshot, d.Bytes, false)
			errs = append(errs, err)
		}
	}
	return store.Image{}, errors.Join(errs...)
}

// deactivateAll begins with those that somebody has open: it fails on them before it has
// touched the others.
func (p *Pipeline) deactivateAll(devices []store.Device) error {
	active, err := p.Pool.Active()
	if err != nil {
		return err
	}
	open := map[int64]int{}
	for _, a := range active {
		open[int64(a.ID)] = a.Open
	}
	devices = slices.Clone(devices)
	slices.SortStableFunc(devices, func(a, b store.Device) int { return open[b.ID] - open[a.ID] })
	for _, d := range devices {
		if err := p.Pool.Deactivate(devmapper.ID(d.ID)); err != nil {
			return err
		}
	}
	return nil
}

// kept explains a removal that the journal refused: the image went on since it was looked
// at.
func (p *Pipeline) kept(ctx context.Context, image int64, err error) error {
	if !errors.Is(err, store.ErrOrder) && !errors.Is(err, store.ErrFenced) {
		return fmt.Errorf("image %d: %w: %w", image, errKept, err)
	}
	img, lookErr := p.Store.Image(ctx, image)
	return errors.Join(fmt.Errorf("image %d: %w: it is %s by now: %w", image, errKept, img.State, err), lookErr)
}

// notReopened ends a job whose image cannot be taken back to a stage: an operator removed
// it since the job looked, or the journal cannot be written. No attempt was begun, so
// nothing is rolled back: whoever removes the image is at its devices. The message comes
// back and finds the image as it is then.
func (p *Pipeline) notReopened(work context.Context, job *Job, err error) {
	p.logJob(job).Warn().Err(err).Msg("lost results are not made again now")
	if work.Err() != nil {
		p.finish(work, job, abandoned)
		return
	}
	p.finish(work, job, outcome{verdict: retry, delay: backoff(p.cfg.Backoff, 1)})
}

package pipeline

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
)

// Recovered says what Recover found and did.
type Recovered struct {
	RolledBack  int      `json:"rolled_back"` // devices of attempts that were cut off
	RolledOn    int      `json:"rolled_on"`   // sealed devices that became ready
	Reactivated int      `json:"reactivated"` // snapshots that were not active
	Lost        int      `json:"lost"`        // results that the pool does not have: made again
	Blobs       int      `json:"blobs"`       // archives and temporary files that no image claims
	Foreign     []string `json:"foreign"`     // thin ids and files that are not ours: left alone
}

// Recover brings journal, pool and blob directory into agreement after a crash, a power cut or a reboot. Nothing else may use the
// pool meanwhile. It is idempotent: killed at any point, the next run finishes; run twice, the second changes nothing.
// A device that was not sealed is rolled back, a sealed one is rolled forward; unfinished images are left to Run.
func (p *Pipeline) Recover(ctx context.Context) (Recovered, error) {
	var r Recovered
	if err := p.Pool.ResumeSuspended(); err != nil { // readers of a suspended device cannot even be killed
		return r, err
	}
	truth, err := p.look()
	if err != nil {
		return r, err
	}
	images, err := p.Store.Images(ctx)
	if err != nil {
		return r, err
	}
	devices, err := p.Store.Devices(ctx)
	if err != nil {
		return r, err
	}
	byImage := map[int64]*Job{}
	for _, img := range images {
		byImage[img.ID] = &Job{image: img}
	}
	for i := len(devices) - 1; i >= 0; i-- { // snapshots before their origins
		d := devices[i]
		if err := p.recoverDevice(ctx, byImage[d.Image], d, truth, &r); err != nil {
			return r, fmt.Errorf("device %d of image %d: %w", d.ID, d.Image, err)
		}
		delete(truth.thins, devmapper.ID(d.ID))
	}
	for id := range truth.thins {
		r.Foreign = append(r.Foreign, fmt.Sprintf("thin device %d", id))
		if err := p.Store.SkipDevices(ctx, int64(id)); err != nil { // it is not to be taken for one of ours
			return r, err
		}
	}
	if err := errors.Join(p.recoverBlobs(byImage, &r), p.recoverManifests(byImage)); err != nil {
		return r, err
	}
	p.Log.Info().Interface("recovered", r).Msg("journal, pool and blobs agree")
	return r, nil
}

// poolTruth is what the pool holds, whatever the journal says.
type poolTruth struct {
	thins  map[devmapper.ID]bool
	active map[devmapper.ID]bool // whole, under our UUIDs
}

// look reads the pool. One that takes no changes is an error: nothing could be rolled back.
func (p *Pipeline) look() (poolTruth, error) {
	t := poolTruth{map[devmapper.ID]bool{}, map[devmapper.ID]bool{}}
	s, err := p.Pool.Status()
	if err == nil {
		err = cannotChange(s)
	}
	if err != nil {
		return t, err
	}
	thins, err := p.Pool.Thins()
	if err != nil {
		return t, err
	}
	for _, th := range thins {
		t.thins[th.ID] = true
	}
	active, err := p.Pool.Active()
	for _, a := range active {
		t.active[a.ID] = !a.HalfCreated
	}
	return t, err
}

// recoverDevice decides about one row of the journal.
func (p *Pipeline) recoverDevice(ctx context.Context, job *Job, d store.Device, truth poolTruth, r *Recovered) error {
	switch {
	case job.image.State.Refused():
		r.RolledBack++
		return p.drop(ctx, d)
	case d.State == store.Sealed && truth.thins[devmapper.ID(d.ID)]:
		r.RolledOn++
		return p.rollForward(ctx, job, d)
	case d.State != store.Ready:
		r.RolledBack++
		return p.drop(ctx, d)
	case !truth.thins[devmapper.ID(d.ID)]:
		r.Lost++
		return p.lose(ctx, job, d)
	case d.Kind == store.ImageDevice:
		return p.Pool.Deactivate(devmapper.ID(d.ID)) // an origin is never active
	}
	if truth.active[devmapper.ID(d.ID)] {
		return nil
	}
	r.Reactivated++
	_, err := p.Pool.Activate(devmapper.ID(d.ID), devmapper.KindSnapshot, d.Bytes, false)
	return err
}

// rollForward finishes an unpack that was cut off after the seal.
func (p *Pipeline) rollForward(ctx context.Context, job *Job, d store.Device) error {
	if err := p.begin(ctx, job, store.Unpack); err != nil {
		return err
	}
	if err := p.Pool.Deactivate(devmapper.ID(d.ID)); err != nil {
		return err
	}
	img, err := p.Store.Unpacked(ctx, job.attempt, d)
	if err != nil {
		return err
	}
	job.image = img
	p.event(job, store.Done, store.Unpack).Int64("device_id", d.ID).Msg("unpack finished: its device was sealed")
	return nil
}

// lose takes an image back to the stage whose result the pool does not have any more.
func (p *Pipeline) lose(ctx context.Context, job *Job, d store.Device) error {
	stage := store.Unpack
	if d.Kind == store.SnapshotDevice {
		stage = store.Activate
	}
	if err := p.reopen(ctx, job, stage, fmt.Errorf("%w: the pool does not have device %d", errLost, d.ID)); err != nil {
		return err
	}
	return p.drop(ctx, d)
}

// recoverBlobs removes temporary files, and archives of images that do not claim them.
func (p *Pipeline) recoverBlobs(images map[int64]*Job, r *Recovered) error {
	names, err := p.Downloader.List()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		id, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSuffix(name, ".part"), ".tar"), 10, 64)
		if err != nil || images[id] == nil || !strings.HasPrefix(name, blobName(id)) {
			r.Foreign = append(r.Foreign, "file "+name)
			continue
		}
		img := images[id].image
		if whole := img.Blob != nil; !img.State.Refused() && whole == (name == blobName(id)) { // the archive, or the part that will be one
			continue
		}
		r.Blobs++
		if img.State.Refused() {
			errs = append(errs, p.discardBlob(images[id]))
		} else {
			errs = append(errs, p.Downloader.Remove(name))
		}
	}
	return errors.Join(errs...)
}

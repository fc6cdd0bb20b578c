package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/store"
)

// unpack turns the archive into a sealed, inactive thin device. The archive is judged
// whole before the pool is touched; every step on the device is recorded before the next
// is taken; what was written is read back through a fresh mount before the seal.
func (p *Pipeline) unpack(ctx context.Context, job *Job) error {
	began := time.Now()
	if job.image.Tree != nil {
		if p.deviceHolds(ctx, job) == nil {
			return p.handOff(ctx, job, "the device is there")
		}
		if finished, err := p.finishSealed(ctx, job); finished || err != nil {
			return err
		}
	}
	// What an earlier attempt left goes first. One that somebody holds does not hold this
	// up.
	if err := p.undoUnpack(ctx, job); err != nil && !errors.Is(err, devmapper.ErrBusy) {
		return err
	}
	src, err := os.Open(job.image.Blob.Path)
	if err != nil {
		return err
	}
	defer src.Close()
	plan, err := p.judgeArchive(ctx, job, src)
	if err != nil {
		return err
	}
	release, err := p.reserve(ctx, need{pool: plan.PoolBytes(), dir: p.cfg.PoolDir, disk: plan.PoolBytes()})
	if err != nil {
		return err
	}
	defer release()
	d, err := p.makeDevice(ctx, job)
	if err != nil {
		return err
	}
	tree, err := p.fill(ctx, job, &d, src, plan)
	if err != nil {
		return err
	}
	if err := p.Pool.Deactivate(devmapper.ID(d.ID)); err != nil {
		return err
	}
	img, err := p.Store.Unpacked(ctx, job.attempt, d)
	if err != nil {
		return err
	}
	p.ended(job, img, began).Int64("device_id", d.ID).Int("entries", tree.Entries).Int64("bytes", tree.Bytes).
		Int("changed", tree.Changed).Str("digest", tree.Digest).Msg("unpacked")
	return nil
}

// judgeArchive makes sure that the archive is what was downloaded, then plans what is
// written. Bytes that this process hashed as it wrote them are taken for granted, unless
// they are refused: what rots on a disk must not condemn an upload. An archive that is
// not what it was is removed; the next attempt downloads it again.
func (p *Pipeline) judgeArchive(ctx context.Context, job *Job, src *os.File) (*archive.Plan, error) {
	b := *job.image.Blob
	verified := !p.hashed(job.image.ID, b)
	if verified {
		if err := p.verifyArchive(ctx, job, b); err != nil {
			return nil, err
		}
	}
	plan, err := p.plan(ctx, job, src)
	var refused *archive.Rejection
	if errors.As(err, &refused) && !verified {
		if err := p.verifyArchive(ctx, job, b); err != nil {
			return nil, err
		}
	}
	return plan, err
}

// hashed reports whether this process wrote the archive, and hashed it on the way.
func (p *Pipeline) hashed(image int64, b store.Blob) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, is := p.fetched[image]
	return is && f.SHA256 == b.SHA256 && f.Inode == b.Inode && f.ModTime.Equal(b.ModTime)
}

// verifyArchive hashes the archive, and removes one that differs.
func (p *Pipeline) verifyArchive(ctx context.Context, job *Job, b store.Blob) error {
	err := p.Downloader.Verify(ctx, download.Blob{Path: b.Path, SHA256: b.SHA256, Size: b.Size})
	if !errors.Is(err, download.ErrCorrupt) {
		return err
	}
	return errors.Join(err, p.Downloader.Remove(blobName(job.image.ID)))
}

// plan judges the archive, and whether it fits its device.
func (p *Pipeline) plan(ctx context.Context, job *Job, src *os.File) (*archive.Plan, error) {
	plan, err := archive.Check(ctx, src, job.image.Blob.Size,
		archive.Options{Policy: p.cfg.policy(job.image.Key), Limits: p.cfg.Limits})
	if err != nil {
		return nil, err
	}
	if need := plan.DeviceBytes(); need > p.cfg.DeviceBytes {
		return nil, fmt.Errorf("%w: it needs about %d bytes of %d: raise DEVICE_SIZE",
			errTooSmall, need, p.cfg.DeviceBytes)
	}
	const most = 20
	for i, a := range plan.Adjustments {
		if i == most {
			p.logJob(job).Info().Int("more", plan.Adjusted-most).Msg("further entries adjusted")
			break
		}
		p.logJob(job).Info().Str("entry", a.Entry).Str("reason", string(a.Reason)).Str("from", a.From).Str("to", a.To).
			Msg("entry adjusted by policy")
	}
	return plan, nil
}

// makeDevice makes an active thin device with an empty file system.
func (p *Pipeline) makeDevice(ctx context.Context, job *Job) (store.Device, error) {
	d, err := p.Store.Reserve(ctx, job.attempt,
		store.Device{Kind: store.DeviceKindImage, Bytes: p.cfg.DeviceBytes, FSUUID: uuid.NewString()})
	if err != nil {
		return d, err
	}
	if err := p.Pool.CreateThin(devmapper.ID(d.ID)); err != nil {
		return d, p.taken(ctx, d, err)
	}
	if err := p.advance(ctx, job, &d, store.DeviceCreated, nil); err != nil {
		return d, err
	}
	path, err := p.Pool.Activate(devmapper.ID(d.ID), devmapper.KindImage, d.Bytes, false)
	if err != nil {
		return d, err
	}
	if err := devmapper.MakeFilesystem(ctx, path, d.FSUUID); err != nil {
		return d, err
	}
	return d, p.advance(ctx, job, &d, store.DeviceFormatted, nil)
}

// fill writes the planned tree, syncs, unmounts, reads it back, and seals it.
func (p *Pipeline) fill(ctx context.Context, job *Job, d *store.Device, src *os.File, plan *archive.Plan) (*store.Tree,
	error,
) {
	path, err := p.Pool.Activate(devmapper.ID(d.ID), devmapper.KindImage, d.Bytes, false)
	if err != nil {
		return nil, err
	}
	written, tree, err := p.extract(ctx, job, *d, path, src, plan)
	if err != nil {
		return nil, err
	}
	if err := p.advance(ctx, job, d, store.DeviceFilled, nil); err != nil {
		return nil, err
	}
	if err := readBack(ctx, path, written); err != nil {
		return nil, err
	}
	return tree, p.seal(ctx, job, d, tree, written)
}

// extract writes the tree and its seal record, durably.
func (p *Pipeline) extract(ctx context.Context, job *Job, d store.Device, path string, src *os.File,
	plan *archive.Plan,
) (_ *archive.Manifest, _ *store.Tree, err error) {
	m, err := devmapper.MountDetached(path, devmapper.MountBuild)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	written, err := archive.Extract(ctx, src, plan, m.Root(), p.progress(job, plan.Bytes))
	if err != nil {
		return nil, nil, err
	}
	tree := &store.Tree{
		Device: d.ID, Shape: string(plan.Shape), Policy: string(plan.Policy), Digest: written.Digest(),
		Entries: plan.Entries, Files: len(written.Records), Bytes: plan.Bytes, Changed: plan.Adjusted,
	}
	if err := p.writeSeal(ctx, m.Root(), job.image, d, tree); err != nil {
		return nil, nil, err
	}
	return written, tree, m.Sync()
}

// readBack compares what the device holds with what was meant to be written.
func readBack(ctx context.Context, path string, written *archive.Manifest) error {
	found, err := readTree(ctx, path)
	if err != nil {
		return err
	}
	if found.Digest() != written.Digest() {
		return fmt.Errorf("%w: %s", errDiffers, strings.Join(written.Diff(found, 5), "; "))
	}
	return nil
}

// finishSealed makes a sealed device ready, which somebody had open when it was to be. It
// reports whether there was one.
func (p *Pipeline) finishSealed(ctx context.Context, job *Job) (bool, error) {
	devices, err := p.Store.DevicesOf(ctx, job.image.ID)
	if err != nil {
		return false, err
	}
	for _, d := range devices {
		if d.ID == job.image.Tree.Device && d.State == store.DeviceSealed {
			return true, p.makeReady(ctx, job, d)
		}
	}
	return false, nil
}

// makeReady ends an unpack whose device is sealed. From here on it is never active.
func (p *Pipeline) makeReady(ctx context.Context, job *Job, d store.Device) error {
	if err := p.Pool.Deactivate(devmapper.ID(d.ID)); err != nil {
		return err
	}
	img, err := p.Store.Unpacked(ctx, job.attempt, d)
	if err != nil {
		return err
	}
	job.image = img
	p.event(job, store.EventDone, store.StageUnpack).Int64("device_id", d.ID).Msg("unpack finished: its device was sealed")
	return nil
}

// undoUnpack removes every device of the image that is not its recorded result, or will
// be: what is sealed is rolled forward.
func (p *Pipeline) undoUnpack(ctx context.Context, job *Job) error {
	return p.dropDevices(ctx, job, func(d store.Device) bool {
		whole := d.State == store.DeviceReady || d.State == store.DeviceSealed
		result := whole && job.image.Tree != nil && job.image.Tree.Device == d.ID
		return d.Kind == store.DeviceKindImage && !result
	})
}

// deviceHolds checks that the image's device is recorded as ready. That the pool still
// has it is found out by the snapshot.
func (p *Pipeline) deviceHolds(ctx context.Context, job *Job) error {
	_, err := p.imageDevice(ctx, job)
	return err
}

func (p *Pipeline) imageDevice(ctx context.Context, job *Job) (store.Device, error) {
	if job.image.Tree == nil {
		return store.Device{}, fmt.Errorf("%w: no device recorded", errLost)
	}
	devices, err := p.Store.DevicesOf(ctx, job.image.ID)
	if err != nil {
		return store.Device{}, err
	}
	for _, d := range devices {
		if d.ID == job.image.Tree.Device && d.State == store.DeviceReady {
			return d, nil
		}
	}
	return store.Device{}, fmt.Errorf("%w: device %d", errLost, job.image.Tree.Device)
}

// taken forgets a reserved id that the pool has already: that device is somebody else's
// and not ours to remove. Other errors it returns as they are.
func (p *Pipeline) taken(ctx context.Context, d store.Device, err error) error {
	if !errors.Is(err, devmapper.ErrExists) {
		return err
	}
	return errors.Join(fmt.Errorf("thin device %d is in the pool already and not in the journal: %w", d.ID, err),
		p.Store.SetDevice(ctx, d.ID, store.DeviceGone))
}

// dropDevices removes the image's devices that match, newest first: a snapshot before its
// origin.
func (p *Pipeline) dropDevices(ctx context.Context, job *Job, match func(store.Device) bool) error {
	devices, err := p.Store.DevicesOf(ctx, job.image.ID)
	if err != nil {
		return err
	}
	var errs []error
	for i := len(devices) - 1; i >= 0; i-- {
		if match(devices[i]) {
			errs = append(errs, p.drop(ctx, devices[i]))
		}
	}
	return errors.Join(errs...)
}

// drop removes one device in an order that survives a crash anywhere: marked, discarded
// (only that gives a loop's backing file its space back), deactivated, deleted from the
// pool, and only then gone from the journal. Every step may find its work done.
func (p *Pipeline) drop(ctx context.Context, d store.Device) error {
	id := devmapper.ID(d.ID)
	err := p.Store.SetDevice(ctx, d.ID, store.DeviceDeleting)
	if store.Unwritable(err) && d.Kind == store.DeviceKindImage && !d.State.Verified() {
		// The disk may be full because of this very device. Nothing on it is of any use,
		// recorded or not.
		p.empty(d)
		err = p.Store.SetDevice(ctx, d.ID, store.DeviceDeleting)
	}
	if err != nil {
		return err
	}
	p.empty(d)
	if err := p.Pool.Deactivate(id); err != nil {
		return err
	}
	if err := p.Pool.Delete(id); err != nil && !errors.Is(err, devmapper.ErrNotFound) {
		return err
	}
	return p.Store.SetDevice(ctx, d.ID, store.DeviceGone)
}

// empty gives a device's space back, to the pool and to the file system under it.
func (p *Pipeline) empty(d store.Device) {
	id := devmapper.ID(d.ID)
	kind := devmapper.KindImage
	if d.Kind == store.DeviceKindSnapshot {
		kind = devmapper.KindSnapshot
	}
	_, err := p.Pool.Activate(id, kind, d.Bytes, false)
	if err == nil {
		err = p.Pool.Discard(id)
	}
	if err != nil && !errors.Is(err, devmapper.ErrNotFound) {
		p.Log.Warn().Err(err).Int64("device_id", d.ID).Msg("device not discarded; its space stays in the backing file")
	}
}

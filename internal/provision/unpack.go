package provision

import (
	"context"
	"errors"
	"os"

	"github.com/google/uuid"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/archive/direct"
	"imagemanager.internal/internal/archive/fstree"
	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/span"
	"imagemanager.internal/internal/store"
)

// Unpack turns the archive into a sealed, inactive thin device. The whole archive is
// judged before the pool is touched. Every step on the device is recorded before the next
// is taken. What was written is read back before the seal.
func (h *Host) Unpack(ctx context.Context, t *Task) error {
	if t.Image.Tree != nil {
		if h.CheckUnpack(ctx, t) == nil {
			return h.record.HandOff(ctx, t, "the device is there")
		}
		if finished, err := h.finishSealed(ctx, t); finished || err != nil {
			return err
		}
	}
	// What an earlier attempt left goes first. A device that somebody has open does not
	// hold this attempt up.
	if err := h.UndoUnpack(ctx, t); err != nil && !errors.Is(err, devmapper.ErrBusy) {
		return err
	}
	src, err := os.Open(t.Image.Blob.Path)
	if err != nil {
		return err
	}
	defer src.Close()
	plan, err := h.judgeArchive(ctx, t, src)
	if err != nil {
		return err
	}
	release, err := h.reserveFor(ctx, plan)
	if err != nil {
		return err
	}
	defer release()
	d, err := h.makeDevice(ctx, t)
	if err != nil {
		return err
	}
	tree, err := h.fill(ctx, t, &d, src, plan)
	if err != nil {
		return err
	}
	if err := h.pool.Deactivate(devmapper.ID(d.ID)); err != nil {
		return err
	}
	_, committed := span.Start(ctx, spanCommit)
	img, err := h.store.FinishUnpack(ctx, t.Attempt, d)
	committed(err)
	if err != nil {
		return err
	}
	h.record.metrics.bytes.WithLabelValues(string(store.StageUnpack)).Add(float64(tree.Bytes))
	h.record.done(t, img).Int("entries", tree.Entries).Int64("bytes", tree.Bytes).
		Int("changed", tree.Changed).Str("digest", tree.Digest).Msg("unpacked")
	return nil
}

// judgeArchive makes sure of the archive's content, and plans what is written. Bytes that
// this process hashed while it wrote them are trusted, unless the archive is refused: rot
// on a disk must not condemn an upload. A changed archive is removed, and the next
// attempt downloads it again.
func (h *Host) judgeArchive(ctx context.Context, t *Task, src *os.File) (plan *archive.Plan, err error) {
	ctx, end := h.record.step(ctx, stepJudge)
	defer func() { end(err) }()
	b := *t.Image.Blob
	verified := !h.hashedHere(t.Image.ID, b)
	if verified {
		if err := h.verifyArchive(ctx, t.Image.ID, b); err != nil {
			return nil, err
		}
	}
	plan, err = h.planArchive(ctx, t, src)
	var refused *archive.Rejection
	if errors.As(err, &refused) && !verified {
		if err := h.verifyArchive(ctx, t.Image.ID, b); err != nil {
			return nil, err
		}
	}
	return plan, err
}

// verifyArchive hashes the archive, and removes it if it differs.
func (h *Host) verifyArchive(ctx context.Context, image int64, b store.Blob) error {
	err := h.archives.Verify(ctx, download.Blob{Path: b.Path, SHA256: b.SHA256, Size: b.Size})
	if !errors.Is(err, download.ErrCorrupt) {
		return err
	}
	return errors.Join(err, h.archives.Remove(ArchiveName(image)))
}

// planArchive judges the archive, and whether it fits its device.
func (h *Host) planArchive(ctx context.Context, t *Task, src *os.File) (*archive.Plan, error) {
	plan, err := archive.Check(ctx, src, t.Image.Blob.Size, h.cfg.Judging(t.Image.Key))
	if err != nil {
		return nil, err
	}
	if err := h.cfg.CheckFits(plan); err != nil {
		return nil, err
	}
	for _, a := range plan.Adjustments {
		h.record.Log(t).Debug().Str("entry", a.Entry).Str("reason", string(a.Reason)).
			Str("from", a.From).Str("to", a.To).Msg("entry adjusted by policy")
	}
	h.record.metrics.judged(plan)
	if plan.Adjusted > 0 {
		h.record.Log(t).Info().Int("entries", plan.Adjusted).Str("policy", string(plan.Policy)).
			Msg("entries adjusted by policy: `consumer show` lists them")
	}
	return plan, nil
}

// reserveFor sets aside the space that the planned tree will take.
func (h *Host) reserveFor(ctx context.Context, plan *archive.Plan) (release func(), err error) {
	ctx, end := h.record.step(ctx, stepReserve)
	defer func() { end(err) }()
	return h.space.reserve(ctx, need{pool: plan.PoolBytes(), dir: h.cfg.PoolDir, disk: plan.PoolBytes()})
}

// makeDevice makes an active thin device with an empty file system.
func (h *Host) makeDevice(ctx context.Context, t *Task) (d store.Device, err error) {
	ctx, end := h.record.step(ctx, stepMkfs)
	defer func() { end(err) }()
	d, err = h.record.reserve(ctx, t,
		store.Device{Kind: store.DeviceKindImage, Bytes: h.cfg.DeviceBytes, FSUUID: uuid.NewString()})
	if err != nil {
		return d, err
	}
	if err := h.pool.CreateThin(devmapper.ID(d.ID)); err != nil {
		return d, h.Devices.releaseForeignID(ctx, d, err)
	}
	if err := h.record.advance(ctx, t, &d, store.DeviceCreated); err != nil {
		return d, err
	}
	path, err := h.pool.Activate(devmapper.ID(d.ID), devmapper.KindImage, d.Bytes, false)
	if err != nil {
		return d, err
	}
	if err := devmapper.MakeFilesystem(ctx, path, d.FSUUID); err != nil {
		return d, err
	}
	return d, h.record.advance(ctx, t, &d, store.DeviceFormatted)
}

// fill writes the planned tree, makes it durable, reads it back, and seals it.
func (h *Host) fill(ctx context.Context, t *Task, d *store.Device, src *os.File, plan *archive.Plan,
) (_ *store.Tree, err error) {
	path, err := h.pool.Activate(devmapper.ID(d.ID), devmapper.KindImage, d.Bytes, false)
	if err != nil {
		return nil, err
	}
	e, err := h.engines.open(ctx, path, src, plan)
	if errors.Is(err, direct.ErrUnsupported) {
		h.record.Log(t).Info().Err(err).Msg("unpacked through a mount instead")
	} else if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	written, tree, err := h.writeTree(ctx, t, *d, e, plan)
	if err != nil {
		return nil, err
	}
	if err := h.record.inStep(ctx, stepSync, func(context.Context) error { return e.sync() }); err != nil {
		return nil, err
	}
	if err := h.record.advance(ctx, t, d, store.DeviceFilled); err != nil {
		return nil, err
	}
	if err := h.record.inStep(ctx, stepReadBack, e.readBack); err != nil {
		return nil, err
	}
	return tree, h.seal(ctx, t, d, tree, written, plan.Adjustments)
}

// writeTree writes the tree and its seal record.
func (h *Host) writeTree(ctx context.Context, t *Task, d store.Device, e engine, plan *archive.Plan,
) (written *fstree.Inventory, tree *store.Tree, err error) {
	seal := func(written *fstree.Inventory) ([]byte, error) {
		tree = newTree(d, plan, written)
		return h.sealRecord(ctx, t.Image, d, tree)
	}
	err = h.record.inStep(ctx, stepExtract, func(ctx context.Context) (err error) {
		written, err = e.write(ctx, seal, h.record.progress(t, plan.Bytes))
		return err
	})
	return written, tree, err
}

// newTree describes a written tree for the journal.
func newTree(d store.Device, plan *archive.Plan, written *fstree.Inventory) *store.Tree {
	tree := &store.Tree{
		Device: d.ID, Shape: string(plan.Shape), Policy: string(plan.Policy), Digest: written.Digest(),
		Entries: plan.Entries, Files: len(written.Records), Bytes: plan.Bytes, Changed: plan.Adjusted,
	}
	for _, l := range plan.Layers {
		tree.Layers = append(tree.Layers, store.Layer{Digest: l.Digest, Size: l.Size})
	}
	return tree
}

// finishSealed makes the image's sealed device ready. An earlier attempt could not,
// because somebody had the device open. It reports whether there was one.
func (h *Host) finishSealed(ctx context.Context, t *Task) (bool, error) {
	devices, err := h.store.DevicesOf(ctx, t.Image.ID)
	if err != nil {
		return false, err
	}
	for _, d := range devices {
		if d.ID == t.Image.Tree.Device && d.State == store.DeviceSealed {
			return true, h.makeReady(ctx, t, d)
		}
	}
	return false, nil
}

// RollForward finishes an unpack cut off after the seal. The attempt begins only
// when nothing can hold it up any more. Messages that joined meanwhile are not recorded
// with it: they come back.
func (h *Host) RollForward(ctx context.Context, t *Task, d store.Device) error {
	if err := h.pool.Deactivate(devmapper.ID(d.ID)); err != nil {
		return err
	}
	if err := h.record.Begin(ctx, t, store.StageUnpack); err != nil {
		return err
	}
	return h.makeReady(ctx, t, d)
}

// makeReady ends an unpack after the seal. From here on the device is never active.
func (h *Host) makeReady(ctx context.Context, t *Task, d store.Device) error {
	if err := h.pool.Deactivate(devmapper.ID(d.ID)); err != nil {
		return err
	}
	_, committed := span.Start(ctx, spanCommit)
	img, err := h.store.FinishUnpack(ctx, t.Attempt, d)
	committed(err)
	if err != nil {
		return err
	}
	t.Image = img
	t.Device = d.ID
	h.record.Event(t, store.EventDone, store.StageUnpack).Msg("unpack finished: its device was sealed")
	return nil
}

// UndoUnpack destroys every device of the image but its result. A sealed device counts as
// one: it is rolled forward.
func (h *Host) UndoUnpack(ctx context.Context, t *Task) error {
	return h.Devices.destroyMatching(ctx, t.Image.ID, func(d store.Device) bool {
		result := d.State.Verified() && t.Image.Tree != nil && t.Image.Tree.Device == d.ID
		return d.Kind == store.DeviceKindImage && !result
	})
}

// CheckUnpack checks for a ready device in the journal. Whether the pool still
// has it, the snapshot finds out.
func (h *Host) CheckUnpack(ctx context.Context, t *Task) error {
	_, err := h.Devices.ofImage(ctx, t.Image)
	return err
}

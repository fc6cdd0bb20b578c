package store

import (
	"context"
	"errors"
	"time"
)

// Enqueue makes an image of the object, or returns the existing image of it: see Find.
// The version id "null" counts as none.
func (s *Store) Enqueue(ctx context.Context, o Object) (img Image, created bool, err error) {
	if o.VersionID == noVersion {
		o.VersionID = ""
	}
	img, err = s.Find(ctx, o)
	if err == nil || !errors.Is(err, ErrNotFound) {
		return img, false, err
	}
	e := Event{At: s.now(), Kind: EventQueued, Detail: Detail{Object: &o, TraceID: newTraceID()}}
	err = s.write(ctx, e.label, func(tx transaction) error {
		img, err = findImage(ctx, tx, o)
		if !errors.Is(err, ErrNotFound) { // another connection was faster
			return err
		}
		now := s.now()
		e.Image, err = insertImage(ctx, tx, Image{Object: o, TraceID: e.Detail.TraceID, CreatedAt: now, UpdatedAt: now})
		if err != nil {
			return err
		}
		created = true
		img, err = record(ctx, tx, e)
		return err
	})
	return img, created, err
}

// Begin starts an attempt at a stage and returns its fencing token. messages are the ids
// of the messages waiting for the image.
func (s *Store) Begin(ctx context.Context, image int64, stage Stage, messages ...string) (Attempt, error) {
	a := Attempt{Image: image, Stage: stage}
	img, err := s.writeEvent(ctx, a.event(EventBegun, s.now(), Detail{Messages: messages}))
	a.N = img.Attempt
	return a, err
}

// Reserve takes the next thin device id. It is the durable intent before any change to
// the pool. d has Kind, Bytes, FSUUID and, for a snapshot, Origin.
func (s *Store) Reserve(ctx context.Context, a Attempt, d Device) (Device, error) {
	d.ID, d.Image, d.State = 0, a.Image, DeviceReserved
	e := a.event(EventStep, s.now(), Detail{Device: &d})
	err := s.write(ctx, e.label, func(tx transaction) error {
		var err error
		if d.ID, err = insertDevice(ctx, tx, d, s.now()); err != nil {
			return err
		}
		_, err = record(ctx, tx, e)
		return err
	})
	return d, err
}

// Advance records a new state of the device. For DeviceSealed, see Seal.
func (s *Store) Advance(ctx context.Context, a Attempt, d Device, to DeviceState) (Device, error) {
	d.State = to
	_, err := s.writeEvent(ctx, a.event(EventStep, s.now(), Detail{Device: &d}))
	return d, err
}

// FinishDownload ends an attempt at StageDownload: the blob is on disk.
func (s *Store) FinishDownload(ctx context.Context, a Attempt, b Blob) (Image, error) {
	return s.writeEvent(ctx, a.event(EventDone, s.now(), Detail{Blob: &b}))
}

// FinishUnpack ends an attempt at StageUnpack: the sealed device is inactive, and
// snapshots of it may be taken.
func (s *Store) FinishUnpack(ctx context.Context, a Attempt, d Device) (Image, error) {
	d.State = DeviceReady
	return s.writeEvent(ctx, a.event(EventDone, s.now(), Detail{Device: &d}))
}

// FinishActivate ends an attempt at StageActivate: the snapshot is active at path. In the
// same transaction it records when the pool had made it.
func (s *Store) FinishActivate(ctx context.Context, a Attempt, d Device, made time.Time, path string) (img Image,
	err error,
) {
	created, ready, at := d, d, s.now()
	created.State, ready.State = DeviceCreated, DeviceReady
	sn := Snapshot{Device: d.ID, Image: a.Image, Path: path, State: snapshotActive, CreatedAt: at}
	e := a.event(EventDone, at, Detail{Device: &ready, Snapshot: &sn})
	err = s.write(ctx, e.label, func(tx transaction) error {
		// The tables pass the step over: they show how the transaction ends.
		if err := insertEvent(ctx, tx, a.event(EventStep, made, Detail{Device: &created})); err != nil {
			return err
		}
		img, err = record(ctx, tx, e)
		return err
	})
	return img, err
}

// HandOff ends an attempt whose result existed already and passed its verification.
func (s *Store) HandOff(ctx context.Context, a Attempt) (Image, error) {
	e := a.event(EventDone, s.now(), Detail{})
	e.Reason = "handed off"
	return s.writeEvent(ctx, e)
}

// Failure describes the end of an attempt without a result.
type Failure struct {
	Verdict string // "retry", or a state that ends the image
	Reason  string

	// Doubt is for a retry: the suspected end of the image. It is believed when the next
	// attempt suspects the same.
	Doubt State
	// Rules is for a refusal: the policy and limits that it rests on.
	Rules string
	// Fetched is the number of bytes newly on disk. If it is not 0, the failure does not
	// count.
	Fetched int64
	// Messages are the ids of the messages waiting for the image.
	Messages []string
}

// Fail ends an attempt without a result.
func (s *Store) Fail(ctx context.Context, a Attempt, f Failure) (Image, error) {
	e := a.event(EventFailed, s.now(),
		Detail{Doubt: f.Doubt, Rules: f.Rules, Fetched: f.Fetched, Messages: f.Messages})
	e.Verdict, e.Reason = f.Verdict, f.Reason
	return s.writeEvent(ctx, e)
}

// Undo ends an attempt after its rollback, without a verdict.
func (s *Store) Undo(ctx context.Context, a Attempt, reason string) (Image, error) {
	e := a.event(EventUndone, s.now(), Detail{})
	e.Reason = reason
	return s.writeEvent(ctx, e)
}

// RecordCutOff ends the attempt of a process that has died. Only a caller that has made
// sure of its death may use it. If no attempt is running, nothing changes.
func (s *Store) RecordCutOff(ctx context.Context, image int64) (img Image, err error) {
	e := Event{
		Image: image, At: s.now(), Kind: EventUndone, Reason: "cut off: the process or the machine died",
		Detail: Detail{CutOff: true},
	}
	err = s.write(ctx, e.label, func(tx transaction) error {
		img, err = queryImage(ctx, tx, imageByID, image)
		if err != nil || !img.Running {
			return err
		}
		e.Attempt = img.Attempt
		e.Stage = img.Stage
		if img.State == StateActive {
			e.Stage = StageActivate // a further snapshot
		}
		img, err = record(ctx, tx, e)
		return err
	})
	return img, err
}

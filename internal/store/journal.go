package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"imagemanager.internal/internal/failpoint"
)

// Enqueue makes the object an image, or finds the image it already is: see Find. The
// version id "null" is that of an object without one.
func (s *Store) Enqueue(ctx context.Context, o Object) (img Image, created bool, err error) {
	if o.VersionID == noVersion {
		o.VersionID = ""
	}
	img, err = s.Find(ctx, o)
	if err == nil || !errors.Is(err, ErrNotFound) {
		return img, false, err
	}
	e := Event{At: s.now(), Kind: EventQueued, Detail: Detail{Object: &o}}
	err = s.write(ctx, &e, func(tx *sql.Tx) error {
		img, err = findImage(ctx, tx, o)
		if !errors.Is(err, ErrNotFound) { // another connection was faster
			return err
		}
		e.Image, err = insertImage(ctx, tx, o, s.now())
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
// of those that wait for it.
func (s *Store) Begin(ctx context.Context, image int64, stage Stage, messages ...string) (Attempt, error) {
	a := Attempt{Image: image, Stage: stage}
	e := a.event(EventBegun, s.now())
	e.Detail.Messages = messages
	err := s.write(ctx, &e, func(tx *sql.Tx) error {
		img, err := queryImage(ctx, tx, imageByID, image)
		if err != nil {
			return err
		}
		a.N = img.Attempt + 1
		e.Attempt = a.N
		_, err = record(ctx, tx, e)
		return err
	})
	return a, err
}

// Reserve takes the next thin device id: the durable intent before anything happens in
// the pool. d carries Kind, Bytes, FSUUID and, for a snapshot, Origin.
func (s *Store) Reserve(ctx context.Context, a Attempt, d Device) (Device, error) {
	d.Image, d.State = a.Image, DeviceReserved
	e := a.event(EventStep, s.now())
	e.Detail.Device = &d
	err := s.write(ctx, &e, func(tx *sql.Tx) error {
		var err error
		if d.ID, err = insertDevice(ctx, tx, d, s.now()); err != nil {
			return err
		}
		_, err = record(ctx, tx, e)
		return err
	})
	return d, err
}

// Advance records that the device has reached a state. With Sealed comes the tree that
// the device holds.
func (s *Store) Advance(ctx context.Context, a Attempt, d Device, to DeviceState, tree *Tree) (Device, error) {
	d.State = to
	e := a.event(EventStep, s.now())
	e.Detail.Device, e.Detail.Tree = &d, tree
	_, err := s.append(ctx, e)
	return d, err
}

// Downloaded ends an attempt at Download: the blob lies on disk.
func (s *Store) Downloaded(ctx context.Context, a Attempt, b Blob) (Image, error) {
	e := a.event(EventDone, s.now())
	e.Detail.Blob = &b
	return s.append(ctx, e)
}

// Unpacked ends an attempt at Unpack: the sealed device is inactive and may be
// snapshotted.
func (s *Store) Unpacked(ctx context.Context, a Attempt, d Device) (Image, error) {
	d.State = DeviceReady
	e := a.event(EventDone, s.now())
	e.Detail.Device = &d
	return s.append(ctx, e)
}

// Activated ends an attempt at Activate: the snapshot is active at path.
func (s *Store) Activated(ctx context.Context, a Attempt, d Device, path string) (Image, error) {
	d.State = DeviceReady
	e := a.event(EventDone, s.now())
	e.Detail.Device = &d
	e.Detail.Snapshot = &Snapshot{Device: d.ID, Image: a.Image, Path: path, State: "active", CreatedAt: e.At}
	return s.append(ctx, e)
}

// HandedOff ends an attempt whose result was already there and still verified.
func (s *Store) HandedOff(ctx context.Context, a Attempt) (Image, error) {
	e := a.event(EventDone, s.now())
	e.Reason = "handed off"
	return s.append(ctx, e)
}

// Failure is how an attempt ended that has no result. Verdict is "retry", or one of the
// terminal states.
type Failure struct {
	Verdict, Reason string

	Doubt   State  // retry: the end that is suspected, and believed when the next attempt finds the same
	Rules   string // a refusal: policy and limits that it was given under
	Fetched int64  // bytes newly on disk: with any, the failure does not count

	Messages []string // the ids of those that wait for the image by now
}

// Fail ends an attempt without a result.
func (s *Store) Fail(ctx context.Context, a Attempt, f Failure) (Image, error) {
	e := a.event(EventFailed, s.now())
	e.Verdict, e.Reason = f.Verdict, f.Reason
	e.Detail.Doubt, e.Detail.Rules, e.Detail.Fetched, e.Detail.Messages = f.Doubt, f.Rules, f.Fetched, f.Messages
	return s.append(ctx, e)
}

// CutOff ends the attempt of an image that a process left behind when it died. Only what
// makes sure that the process is dead may call it. Without such an attempt it changes
// nothing.
func (s *Store) CutOff(ctx context.Context, image int64) (img Image, err error) {
	e := Event{Image: image, At: s.now(), Kind: EventUndone, Reason: "cut off: the process or the machine died"}
	e.Detail.CutOff = true
	err = s.write(ctx, &e, func(tx *sql.Tx) error {
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

// Resume takes up a pending image at which nobody works, at the stage where it stands.
// With an attempt under way it changes nothing.
func (s *Store) Resume(ctx context.Context, image int64, reason string) (img Image, resumed bool, err error) {
	e := Event{Image: image, At: s.now(), Kind: EventReopened, Reason: reason, Detail: Detail{Resumed: true}}
	err = s.write(ctx, &e, func(tx *sql.Tx) error {
		img, err = queryImage(ctx, tx, imageByID, image)
		if err != nil || img.State != StatePending || img.Running {
			return err
		}
		e.Stage, resumed = img.Stage, true
		img, err = record(ctx, tx, e)
		return err
	})
	return img, resumed, err
}

// Undo ends an attempt that was rolled back without a verdict.
func (s *Store) Undo(ctx context.Context, a Attempt, reason string) (Image, error) {
	e := a.event(EventUndone, s.now())
	e.Reason = reason
	return s.append(ctx, e)
}

// Reopen takes an image back to a stage whose result was lost. ErrOrder if that is Unpack
// and the journal has the image's device: two of an image cannot be, see Lose.
func (s *Store) Reopen(ctx context.Context, image int64, stage Stage, reason string) (img Image, err error) {
	e := Event{Image: image, At: s.now(), Kind: EventReopened, Stage: stage, Reason: reason}
	err = s.write(ctx, &e, func(tx *sql.Tx) error {
		if img, err = queryImage(ctx, tx, imageByID, image); err != nil {
			return err
		}
		has, err := kept(ctx, tx, img)
		if err != nil {
			return err
		}
		if stage == StageUnpack && has.Device {
			return fmt.Errorf("image %d: %w: reopened at %s, and its device %d is there",
				image, ErrOrder, stage, img.Tree.Device)
		}
		img, err = record(ctx, tx, e)
		return err
	})
	return img, err
}

// Lose takes an image back to the stage that makes d, which the pool does not have any
// more. From here on the journal does not have it either, and what the pool may yet have
// under its id is not ours to touch.
func (s *Store) Lose(ctx context.Context, d Device, reason string) (Image, error) {
	stage := StageUnpack
	if d.Kind == DeviceKindSnapshot {
		stage = StageActivate
	}
	d.State = DeviceGone
	return s.append(ctx, Event{
		Image: d.Image, At: s.now(), Kind: EventReopened, Stage: stage, Reason: reason,
		Detail: Detail{Device: &d},
	})
}

// SetDevice moves a device outside of any attempt: the two steps of its removal. It is
// not an event of the image. ErrHandedOut for a snapshot that was handed out and that no
// operator removes.
func (s *Store) SetDevice(ctx context.Context, id int64, to DeviceState) error {
	e := Event{Kind: "device", Detail: Detail{Device: &Device{ID: id, State: to}}} // only the name of a failpoint
	return s.write(ctx, &e, func(tx *sql.Tx) error {
		if err := mayDelete(ctx, tx, id, to); err != nil {
			return err
		}
		return moveDevice(ctx, tx, Device{ID: id, State: to}, s.now())
	})
}

func (a Attempt) event(k EventKind, at time.Time) Event {
	return Event{Image: a.Image, At: at, Kind: k, Stage: a.Stage, Attempt: a.N}
}

func (s *Store) append(ctx context.Context, e Event) (img Image, err error) {
	err = s.write(ctx, &e, func(tx *sql.Tx) error {
		img, err = record(ctx, tx, e)
		return err
	})
	return img, err
}

// write runs fn, which records *e, in a transaction. Every event is a failpoint of the
// crash tests, before and after it is durable.
func (s *Store) write(ctx context.Context, e *Event, fn func(*sql.Tx) error) error {
	err := s.tx(ctx, func(tx *sql.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		e.failpoint("before")
		return nil
	})
	if err == nil {
		e.failpoint("after")
	}
	return err
}

// failpoint is named when:kind:stage:device state, such as "after:step:unpack:sealed" or
// "before:done:download:".
func (e *Event) failpoint(when string) {
	var state DeviceState
	if d := e.Detail.Device; d != nil {
		state = d.State
	}
	failpoint.Here(when, string(e.Kind), string(e.Stage), string(state))
}

// record appends one event and brings the tables to the fold that includes it.
func record(ctx context.Context, tx *sql.Tx, e Event) (Image, error) {
	img, err := queryImage(ctx, tx, imageByID, e.Image)
	if err != nil {
		return img, err
	}
	before := img.Progress
	if e.Kind == EventFailed && ends[State(e.Verdict)] {
		has, err := kept(ctx, tx, img)
		if err != nil {
			return img, err
		}
		e.Detail.Kept = &has
	}
	if e.Kind == EventQueued {
		before = Progress{}
	}
	if img.Progress, err = before.apply(e); err != nil {
		return img, fmt.Errorf("image %d: %w", e.Image, err)
	}
	if err := insertEvent(ctx, tx, e); err != nil {
		return img, err
	}
	if d := e.Detail.Device; d != nil && d.State != DeviceReserved {
		if err := moveDevice(ctx, tx, *d, e.At); err != nil {
			return img, err
		}
	}
	if sn := e.Detail.Snapshot; sn != nil {
		if _, err := tx.ExecContext(ctx, snapshotInsert, sn.Device, sn.Image, sn.Path, sn.State,
			sn.CreatedAt.UnixNano()); err != nil {
			return img, fmt.Errorf("insert snapshot %d: %w", sn.Device, err)
		}
	}
	img.UpdatedAt = e.At
	return img, updateImage(ctx, tx, img)
}

func insertEvent(ctx context.Context, tx *sql.Tx, e Event) error {
	detail, err := json.Marshal(e.Detail)
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	_, err = tx.ExecContext(ctx, eventInsert, e.Image, e.At.UnixNano(), string(e.Kind), string(e.Stage), e.Attempt,
		e.Verdict, e.Reason, string(detail))
	if err != nil {
		return fmt.Errorf("insert event: %w", err)
	}
	return nil
}

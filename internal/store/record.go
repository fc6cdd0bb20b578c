package store

import (
	"context"
	"fmt"
	"time"

	"imagemanager.internal/internal/failpoint"
)

func (a Attempt) event(kind EventKind, at time.Time, d Detail) Event {
	return Event{Image: a.Image, At: at, Kind: kind, Stage: a.Stage, Attempt: a.N, Detail: d}
}

// write runs fn in a transaction, with a failpoint of the crash tests before the commit
// and another after it. label names both. It is called after fn, because fn may complete
// the event to be named.
func (s *Store) write(ctx context.Context, label func() string, fn func(transaction) error) error {
	return s.writeAs(ctx, synced, label, fn)
}

func (s *Store) writeAs(ctx context.Context, as durability, label func() string, fn func(transaction) error) error {
	began := time.Now()
	err := s.inTxAs(ctx, as, func(tx transaction) error {
		if err := fn(tx); err != nil {
			return err
		}
		failpoint.Here("before", label())
		return nil
	})
	if s.Observe != nil {
		s.Observe(time.Since(began), as == synced, err)
	}
	if err == nil {
		failpoint.Here("after", label())
	}
	return err
}

// durability is ordered for events that nothing outside depends on, and that cost little
// to lose. If a power cut takes
//   - the beginning of an attempt, nothing had been changed in the pool: what a device is
//     made by is the synced event of its id, right after;
//   - a step before the seal, the device is rolled back, as it would be from that step;
//   - the end of an unpack, the device is rolled forward from its seal once more. No
//     snapshot of it exists, because the event of the snapshot's id is synced.
func (e *Event) durability() durability {
	switch d := e.Detail.Device; {
	case e.Kind == EventBegun, e.Kind == EventDone && e.Stage == StageUnpack:
		return ordered
	case e.Kind == EventStep && d != nil &&
		(d.State == DeviceCreated || d.State == DeviceFormatted || d.State == DeviceFilled):
		return ordered
	}
	return synced
}

// label is kind:stage:device state, such as "step:unpack:sealed" or "done:download:".
func (e *Event) label() string {
	var state DeviceState
	if d := e.Detail.Device; d != nil {
		state = d.State
	}
	return fmt.Sprintf("%s:%s:%s", e.Kind, e.Stage, state)
}

// labelled is the label of a write without an event, in the same form.
func labelled(text string) func() string { return func() string { return text } }

// writeEvent records a single event without a further condition.
func (s *Store) writeEvent(ctx context.Context, e Event) (img Image, err error) {
	err = s.writeAs(ctx, e.durability(), e.label, func(tx transaction) error {
		img, err = record(ctx, tx, e)
		return err
	})
	return img, err
}

// record appends one event and updates the tables to the fold that includes it. The
// beginning of an attempt without a number begins the next.
func record(ctx context.Context, tx transaction, e Event) (Image, error) {
	img, err := queryImage(ctx, tx, imageByID, e.Image)
	if err != nil {
		return img, err
	}
	if e.Kind == EventBegun && e.Attempt == 0 {
		e.Attempt = img.Attempt + 1
	}
	if e.Kind == EventFailed && endStates[State(e.Verdict)] {
		kept, err := keptResults(ctx, tx, img)
		if err != nil {
			return img, err
		}
		e.Detail.Kept = &kept
	}
	before := img.Progress
	if e.Kind == EventQueued { // the row is there before its first event
		before = Progress{}
	}
	next, err := Fold(before, e)
	if err != nil {
		return img, fmt.Errorf("image %d: %w", e.Image, err)
	}
	img.Progress = next
	if err := insertEvent(ctx, tx, e); err != nil {
		return img, err
	}
	if d := e.Detail.Device; d != nil && d.State != DeviceReserved {
		if err := setDeviceState(ctx, tx, d.ID, d.State, e.At); err != nil {
			return img, err
		}
	}
	if sn := e.Detail.Snapshot; sn != nil {
		if err := insertSnapshot(ctx, tx, *sn); err != nil {
			return img, err
		}
	}
	img.UpdatedAt = e.At
	if img.State == before.State && img.Tree == before.Tree {
		return img, updateAttempt(ctx, tx, img)
	}
	return img, updateImage(ctx, tx, img)
}

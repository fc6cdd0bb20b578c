package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

const (
	snapshotEver = `SELECT ` + snapshotColumns + ` FROM snapshots s JOIN images i ON i.id = s.image_id
		WHERE s.device_id = ? OR s.path = ? ORDER BY s.device_id DESC LIMIT 1`
	devicesLeft = `SELECT count(*) FROM devices WHERE image_id = ? AND state <> 'gone'`
)

// ErrLeftovers says that the removal of an image was cut off and has to be finished
// first.
var ErrLeftovers = errors.New("its removal is not finished")

// removed applies the removal of one snapshot, or of the image: while nobody works on it,
// and only if no attempt was made since the operator looked.
func (p Progress) removed(e Event) (Progress, error) {
	if e.Attempt != p.Attempt {
		return p, fmt.Errorf("%w: removed as of attempt %d, current is %d", ErrFenced, e.Attempt, p.Attempt)
	}
	if p.State == "" || p.State == StateRemoved || p.State == StatePending && p.Running || e.Detail.Device != nil &&
		p.State != StateActive {
		return p, fmt.Errorf("%w: removed in state %q", ErrOrder, p.State)
	}
	if e.Detail.Device != nil {
		return p, nil
	}
	return Progress{State: StateRemoved, Attempt: p.Attempt, Reason: e.Reason}, nil
}

// Remove records that an operator removes the image: the durable intent before anything
// of it is removed. a is the image's newest attempt. From here on no attempt begins or
// writes, and Recover removes what is left.
func (s *Store) Remove(ctx context.Context, a Attempt, reason string) (Image, error) {
	return s.append(ctx, Event{Image: a.Image, At: s.now(), Kind: EventRemoved, Attempt: a.N, Reason: reason})
}

// RemoveSnapshot records that an operator removes one snapshot of an active image: its
// device is Deleting. The image stays active, even if it was the last.
func (s *Store) RemoveSnapshot(ctx context.Context, a Attempt, d Device) (Image, error) {
	d.State = DeviceDeleting
	return s.append(ctx, Event{
		Image: a.Image, At: s.now(), Kind: EventRemoved, Stage: StageActivate, Attempt: a.N,
		Detail: Detail{Device: &d},
	})
}

// Resubmit takes a removed image into the pipeline again. ErrLeftovers while the journal
// has devices of it.
func (s *Store) Resubmit(ctx context.Context, image int64) (img Image, err error) {
	e := Event{Image: image, At: s.now(), Kind: EventResubmitted}
	err = s.write(ctx, &e, func(tx *sql.Tx) error {
		var left int
		if err := tx.QueryRowContext(ctx, devicesLeft, image).Scan(&left); err != nil {
			return fmt.Errorf("count devices: %w", err)
		}
		if left > 0 {
			return fmt.Errorf("image %d: %w: it has %d devices: `consumer rm %d` again, or start the daemon",
				image, ErrLeftovers, left, image)
		}
		img, err = record(ctx, tx, e)
		return err
	})
	return img, err
}

// SnapshotByID returns the snapshot with the device id or, if id is 0, at the path,
// active or gone; or ErrNotFound.
func (s *Store) SnapshotByID(ctx context.Context, id int64, path string) (Snapshot, error) {
	var sn Snapshot
	var at int64
	err := s.read.QueryRowContext(ctx, snapshotEver, id, path).
		Scan(&sn.Device, &sn.Image, &sn.Key, &sn.Path, &sn.State, &at)
	if errors.Is(err, sql.ErrNoRows) {
		return sn, fmt.Errorf("snapshot %s: %w; `consumer snapshots` lists them", nameOf(id, path), ErrNotFound)
	}
	if err != nil {
		return sn, fmt.Errorf("read snapshot: %w", err)
	}
	sn.CreatedAt = time.Unix(0, at).UTC()
	return sn, nil
}

func nameOf(id int64, path string) string {
	if path != "" {
		return fmt.Sprintf("%q", path)
	}
	return fmt.Sprint(id)
}

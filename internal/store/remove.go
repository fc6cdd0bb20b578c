package store

import (
	"context"
	"errors"
	"fmt"
)

// ErrLeftovers is returned when the removal of an image was cut off. It has to be
// finished first.
var ErrLeftovers = errors.New("its removal is not finished")

const devicesLeft = `SELECT count(*) FROM devices WHERE image_id = ? AND state <> 'gone'`

// Remove records the removal of an image by an operator. It is the durable intent before
// anything is removed. a is the image's newest attempt. From here on no attempt begins or
// writes, and a reconcile removes the rest.
func (s *Store) Remove(ctx context.Context, a Attempt, reason string) (Image, error) {
	return s.writeEvent(ctx, Event{Image: a.Image, At: s.now(), Kind: EventRemoved, Attempt: a.N, Reason: reason})
}

// RemoveSnapshot records the removal of one snapshot of an active image by an operator:
// its device is in DeviceDeleting. The image stays active, even without any snapshot.
func (s *Store) RemoveSnapshot(ctx context.Context, a Attempt, d Device) (Image, error) {
	d.State = DeviceDeleting
	a.Stage = StageActivate
	return s.writeEvent(ctx, a.event(EventRemoved, s.now(), Detail{Device: &d}))
}

// Resubmit takes a removed image into the pipeline again. It returns ErrLeftovers while
// the journal has devices of the image.
func (s *Store) Resubmit(ctx context.Context, image int64) (img Image, err error) {
	e := Event{Image: image, At: s.now(), Kind: EventResubmitted}
	err = s.write(ctx, e.label, func(tx transaction) error {
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

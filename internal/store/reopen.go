package store

import (
	"context"
	"fmt"
)

// Resume takes up a pending image at its present stage. If an attempt is running, nothing
// changes.
func (s *Store) Resume(ctx context.Context, image int64, reason string) (img Image, resumed bool, err error) {
	e := Event{Image: image, At: s.now(), Kind: EventReopened, Reason: reason, Detail: Detail{Resumed: true}}
	err = s.write(ctx, e.label, func(tx transaction) error {
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

// Reopen takes an image back to a stage whose result was lost. It returns ErrOrder for
// StageUnpack if the journal has the image's device, because an image cannot have two:
// see RecordLoss.
func (s *Store) Reopen(ctx context.Context, image int64, stage Stage, reason string) (img Image, err error) {
	e := Event{Image: image, At: s.now(), Kind: EventReopened, Stage: stage, Reason: reason}
	err = s.write(ctx, e.label, func(tx transaction) error {
		if img, err = queryImage(ctx, tx, imageByID, image); err != nil {
			return err
		}
		kept, err := keptResults(ctx, tx, img)
		if err != nil {
			return err
		}
		if stage == StageUnpack && kept.Device {
			return fmt.Errorf("image %d: %w: reopened at %s although it has device %d",
				image, ErrOrder, stage, img.Tree.Device)
		}
		img, err = record(ctx, tx, e)
		return err
	})
	return img, err
}

// RecordLoss records that the pool no longer has d, and takes its image back to the stage
// that makes d. From here on the journal does not have the device either. If the pool
// should still have a device with this id, it must not be touched.
func (s *Store) RecordLoss(ctx context.Context, d Device, reason string) (Image, error) {
	stage := StageUnpack
	if d.Kind == DeviceKindSnapshot {
		stage = StageActivate
	}
	d.State = DeviceGone
	return s.writeEvent(ctx, Event{
		Image: d.Image, At: s.now(), Kind: EventReopened, Stage: stage, Reason: reason,
		Detail: Detail{Device: &d},
	})
}

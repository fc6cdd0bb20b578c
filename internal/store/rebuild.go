package store

import (
	"context"
	"fmt"
	"time"
)

const (
	rebuildRows = `SELECT (SELECT count(*) FROM images) + (SELECT count(*) FROM devices) +
		(SELECT count(*) FROM pool)`
	imageSequenceInit = `INSERT INTO sqlite_sequence (name, seq) SELECT 'images', 0
		WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'images')`
	imageSequenceAdvance = `UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'images'`

	rebuiltReason = "rebuilt from the pool"
)

// RebuiltImage is an image found in the pool.
type RebuiltImage struct {
	Seal      SealRecord
	Blob      *Blob      // its archive, nil if the file is missing
	Snapshots []Snapshot // with Device and Path
}

// MaxIDs are the largest ids in use, as far as is known. Ids handed out later are larger.
type MaxIDs struct {
	Device int64 // of the pool's thin devices
	Image  int64 // named in a seal record or by a file among the archives
}

// Rebuild fills an empty database with a pool and the images found in it, in one
// transaction. They keep their ids. Each image gets the events that lead to what it has,
// so its row is their fold: active with snapshots, or due for activation without any.
//
// It returns ErrOrder if the database is not empty, and SQLite's error if an image or a
// device is listed twice.
func (s *Store) Rebuild(ctx context.Context, p Pool, images []RebuiltImage, inUse MaxIDs) error {
	return s.write(ctx, labelled("rebuilt::"), func(tx transaction) error {
		var rows int
		if err := tx.QueryRowContext(ctx, rebuildRows).Scan(&rows); err != nil {
			return fmt.Errorf("rebuild: %w", err)
		}
		if rows != 0 {
			return fmt.Errorf("%w: the database to be rebuilt is not empty", ErrOrder)
		}
		if err := insertPool(ctx, tx, p, s.now()); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, poolSetReady); err != nil {
			return fmt.Errorf("record pool: %w", err)
		}
		for _, r := range images {
			if err := rebuildImage(ctx, tx, r, s.now()); err != nil {
				return fmt.Errorf("rebuild image %d: %w", r.Seal.Image, err)
			}
		}
		if err := advanceIDs(ctx, tx, deviceSequenceInit, deviceSequenceAdvance, inUse.Device); err != nil {
			return err
		}
		return advanceIDs(ctx, tx, imageSequenceInit, imageSequenceAdvance, inUse.Image)
	})
}

// rebuildImage inserts one image: first the rows that exist before their events, then
// every event, at the present time.
func rebuildImage(ctx context.Context, tx transaction, r RebuiltImage, now time.Time) error {
	img := Image{
		ID: r.Seal.Image, Object: r.Seal.Object(), TraceID: newTraceID(), CreatedAt: r.Seal.CreatedAt, UpdatedAt: now,
	}
	if _, err := insertImage(ctx, tx, img); err != nil {
		return err
	}
	for _, e := range r.events(now) {
		e.Reason = rebuiltReason
		if e.Kind == EventQueued {
			e.Detail.TraceID = img.TraceID
		}
		if d := e.Detail.Device; d != nil && d.State == DeviceReserved {
			if _, err := insertDevice(ctx, tx, *d, now); err != nil {
				return err
			}
		}
		if _, err := record(ctx, tx, e); err != nil {
			return err
		}
	}
	return nil
}

// events is the shortest history with this end. If the archive is missing, the download
// counts as handed off. Whoever needs the archive finds it missing and fetches it again.
func (r RebuiltImage) events(now time.Time) []Event {
	id, o, tree := r.Seal.Image, r.Seal.Object(), r.Seal.Tree()
	download, unpack := Attempt{id, StageDownload, 1}, Attempt{id, StageUnpack, 2}
	d := Device{
		ID: r.Seal.Device, Image: id, Kind: DeviceKindImage, Bytes: r.Seal.DeviceBytes,
		FSUUID: r.Seal.FSUUID,
	}
	list := []Event{
		{Image: id, At: now, Kind: EventQueued, Detail: Detail{Object: &o}},
		download.event(EventBegun, now, Detail{}),
		download.event(EventDone, now, Detail{Blob: r.Blob}),
		unpack.event(EventBegun, now, Detail{}),
		unpack.event(EventStep, now, Detail{Device: d.inState(DeviceReserved)}),
		unpack.event(EventStep, now, Detail{Device: d.inState(DeviceCreated)}),
		unpack.event(EventStep, now, Detail{Device: d.inState(DeviceFormatted)}),
		unpack.event(EventStep, now, Detail{Device: d.inState(DeviceFilled)}),
		unpack.event(EventStep, now, Detail{Device: d.inState(DeviceSealed), Tree: &tree}),
		unpack.event(EventDone, now, Detail{Device: d.inState(DeviceReady)}),
	}
	for i, sn := range r.Snapshots {
		a := Attempt{id, StageActivate, int64(i) + 3}
		sd := Device{
			ID: sn.Device, Image: id, Kind: DeviceKindSnapshot, Origin: d.ID, Bytes: d.Bytes,
			FSUUID: d.FSUUID,
		}
		sn.Image, sn.State, sn.CreatedAt = id, snapshotActive, now
		list = append(list,
			a.event(EventBegun, now, Detail{}),
			a.event(EventStep, now, Detail{Device: sd.inState(DeviceReserved)}),
			a.event(EventStep, now, Detail{Device: sd.inState(DeviceCreated)}),
			a.event(EventDone, now, Detail{Device: sd.inState(DeviceReady), Snapshot: &sn}))
	}
	return list
}

func (d Device) inState(state DeviceState) *Device {
	d.State = state
	return &d
}

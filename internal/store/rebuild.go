package store

import (
	"context"
	"database/sql"
	"fmt"
)

const (
	rebuildEmpty  = `SELECT (SELECT count(*) FROM images) + (SELECT count(*) FROM devices) + (SELECT count(*) FROM pool)`
	rebuildImage  = `INSERT INTO images (id, bucket, key, version, version_id, etag, sequencer, size, created_at, state, stage, running, attempt, failures, reason, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'pending', 'download', 0, 0, 0, '', ?)`
	rebuildDevice = `INSERT INTO devices (id, image_id, kind, state, origin, bytes, fs_uuid, updated_at) VALUES (?, ?, ?, 'reserved', nullif(?, 0), ?, ?, ?)`
	imageSequence = `INSERT INTO sqlite_sequence (name, seq) SELECT 'images', 0 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'images')`
	imageSkip     = `UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'images'`
	rebuiltReason = "rebuilt from the pool"
	rebuiltKind   = EventKind("rebuilt") // only the name of a failpoint
)

// Rebuilt is an image that was found in the pool: its seal, its archive if that is still
// there, and its snapshots.
type Rebuilt struct {
	Seal      Seal
	Blob      *Blob
	Snapshots []Snapshot // Device and Path count
}

// MaxIDs are the largest ids that are in use or may be: those handed out later are larger.
type MaxIDs struct {
	Device int64 // of the pool's thin devices
	Image  int64 // named by a seal, or by a file among the archives
}

// Rebuild fills an empty database with a pool and the images found in it, under the ids
// that they had, in one transaction. Each image gets the events that lead to what it has,
// so that its row is their fold: active with its snapshots, or, without any, due for
// activation. Errors: ErrOrder for a database that is not empty; an image or device that
// is there twice is SQLite's.
func (s *Store) Rebuild(ctx context.Context, p Pool, images []Rebuilt, taken MaxIDs) error {
	e := Event{Kind: rebuiltKind}
	return s.write(ctx, &e, func(tx *sql.Tx) error {
		var rows int
		if err := tx.QueryRowContext(ctx, rebuildEmpty).Scan(&rows); err != nil {
			return fmt.Errorf("rebuild: %w", err)
		}
		if rows != 0 {
			return fmt.Errorf("%w: the database to be rebuilt is not empty", ErrOrder)
		}
		if _, err := tx.ExecContext(ctx, poolInsert, p.UUID, p.Name, p.Data, p.Metadata, p.BlockSize, s.now().
			UnixNano()); err != nil {
			return fmt.Errorf("record pool: %w", err)
		}
		if _, err := tx.ExecContext(ctx, poolReady); err != nil {
			return fmt.Errorf("record pool: %w", err)
		}
		for _, r := range images {
			if err := s.rebuild(ctx, tx, r); err != nil {
				return fmt.Errorf("rebuild image %d: %w", r.Seal.Image, err)
			}
		}
		return skip(ctx, tx, taken)
	})
}

// skip makes the ids handed out from now on larger than those taken.
func skip(ctx context.Context, tx *sql.Tx, taken MaxIDs) error {
	for _, step := range []struct {
		query string
		args  []any
	}{{deviceSequence, nil}, {deviceSkip, []any{taken.Device}}, {imageSequence, nil}, {imageSkip, []any{taken.Image}}} {
		if _, err := tx.ExecContext(ctx, step.query, step.args...); err != nil {
			return fmt.Errorf("skip ids: %w", err)
		}
	}
	return nil
}

// rebuild inserts one image: its rows as they were at the very beginning, then every
// event as if it happened now.
func (s *Store) rebuild(ctx context.Context, tx *sql.Tx, r Rebuilt) error {
	o, now := r.Seal.Object(), s.now()
	_, err := tx.ExecContext(ctx, rebuildImage, r.Seal.Image, o.Bucket, o.Key, o.Version(), o.VersionID, o.ETag,
		o.Sequencer, o.Size,
		r.Seal.CreatedAt.UnixNano(), now.UnixNano())
	if err != nil {
		return err
	}
	for _, e := range r.events() {
		e.Image, e.At, e.Reason = r.Seal.Image, now, rebuiltReason
		if d := e.Detail.Device; d != nil && d.State == DeviceReserved {
			if _, err := tx.ExecContext(ctx, rebuildDevice, d.ID, d.Image, string(d.Kind), d.Origin, d.Bytes, d.FSUUID,
				now.UnixNano()); err != nil {
				return err
			}
		}
		if sn := e.Detail.Snapshot; sn != nil {
			sn.CreatedAt = now
		}
		if _, err := record(ctx, tx, e); err != nil {
			return err
		}
	}
	return nil
}

// events is the shortest history with this end. Without its archive the download counts
// as handed off: whoever needs the archive finds that there is none, and fetches it
// again.
func (r Rebuilt) events() []Event {
	o, tree := r.Seal.Object(), r.Seal.Tree()
	download, unpack := Attempt{Stage: StageDownload, N: 1}, Attempt{Stage: StageUnpack, N: 2}
	d := Device{
		ID: r.Seal.Device, Image: r.Seal.Image, Kind: DeviceKindImage, Bytes: r.Seal.DeviceBytes,
		FSUUID: r.Seal.FSUUID,
	}
	list := []Event{
		{Kind: EventQueued, Detail: Detail{Object: &o}},
		download.with(EventBegun, Detail{}),
		download.with(EventDone, Detail{Blob: r.Blob}),
		unpack.with(EventBegun, Detail{}),
		unpack.with(EventStep, Detail{Device: d.in(DeviceReserved)}),
		unpack.with(EventStep, Detail{Device: d.in(DeviceCreated)}),
		unpack.with(EventStep, Detail{Device: d.in(DeviceFormatted)}),
		unpack.with(EventStep, Detail{Device: d.in(DeviceFilled)}),
		unpack.with(EventStep, Detail{Device: d.in(DeviceSealed), Tree: &tree}),
		unpack.with(EventDone, Detail{Device: d.in(DeviceReady)}),
	}
	for i, sn := range r.Snapshots {
		a := Attempt{Stage: StageActivate, N: int64(i) + 3}
		sd := Device{
			ID: sn.Device, Image: r.Seal.Image, Kind: DeviceKindSnapshot, Origin: d.ID, Bytes: d.Bytes,
			FSUUID: d.FSUUID,
		}
		sn.Image, sn.State = r.Seal.Image, "active"
		list = append(list,
			a.with(EventBegun, Detail{}),
			a.with(EventStep, Detail{Device: sd.in(DeviceReserved)}),
			a.with(EventStep, Detail{Device: sd.in(DeviceCreated)}),
			a.with(EventDone, Detail{Device: sd.in(DeviceReady), Snapshot: &sn}))
	}
	return list
}

func (a Attempt) with(k EventKind, d Detail) Event {
	return Event{Kind: k, Stage: a.Stage, Attempt: a.N, Detail: d}
}

func (d Device) in(state DeviceState) *Device {
	d.State = state
	return &d
}

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Snapshot is a copy-on-write snapshot of an image.
type Snapshot struct {
	Device    int64     `json:"device_id"`
	Image     int64     `json:"image_id"`
	Key       string    `json:"s3_key"`
	Path      string    `json:"path"`
	State     string    `json:"state"` // active, gone
	CreatedAt time.Time `json:"created_at"`
}

const snapshotActive = "active"

const (
	snapshotsFrom = `SELECT s.device_id, s.image_id, i.key, s.path, s.state, s.created_at
		FROM snapshots s JOIN images i ON i.id = s.image_id`
	snapshotsAll   = snapshotsFrom + ` WHERE s.state = 'active' ORDER BY s.device_id`
	snapshotsOf    = snapshotsFrom + ` WHERE s.state = 'active' AND s.image_id = +? ORDER BY s.device_id`
	snapshotByID   = snapshotsFrom + ` WHERE s.device_id = ?`
	snapshotByPath = snapshotsFrom + ` WHERE s.path = ? ORDER BY s.device_id DESC LIMIT 1`
	snapshotInsert = `INSERT INTO snapshots (device_id, image_id, path, state, created_at) VALUES (?, ?, ?, ?, ?)`
	snapshotGone   = `UPDATE snapshots SET state = 'gone' WHERE device_id = ?`
)

// Snapshots returns every active snapshot.
func (s *Store) Snapshots(ctx context.Context) ([]Snapshot, error) {
	return queryAll(ctx, s.readDB, "snapshots", scanSnapshot, snapshotsAll)
}

// SnapshotsOf returns the active snapshots of an image.
func (s *Store) SnapshotsOf(ctx context.Context, image int64) ([]Snapshot, error) {
	return queryAll(ctx, s.readDB, "snapshots", scanSnapshot, snapshotsOf, image)
}

// SnapshotByID returns the snapshot on a device, active or gone, or ErrNotFound.
func (s *Store) SnapshotByID(ctx context.Context, device int64) (Snapshot, error) {
	return s.snapshot(ctx, fmt.Sprint(device), snapshotByID, device)
}

// SnapshotByPath returns the newest snapshot at a path, active or gone, or ErrNotFound.
func (s *Store) SnapshotByPath(ctx context.Context, path string) (Snapshot, error) {
	return s.snapshot(ctx, fmt.Sprintf("%q", path), snapshotByPath, path)
}

func (s *Store) snapshot(ctx context.Context, name, query string, arg any) (Snapshot, error) {
	sn, err := scanSnapshot(s.readDB.QueryRowContext(ctx, query, arg))
	if errors.Is(err, sql.ErrNoRows) {
		return sn, fmt.Errorf("snapshot %s: %w; `consumer snapshots` lists them", name, ErrNotFound)
	}
	return sn, err
}

func scanSnapshot(row scanner) (Snapshot, error) {
	var sn Snapshot
	var at int64
	if err := row.Scan(&sn.Device, &sn.Image, &sn.Key, &sn.Path, &sn.State, &at); err != nil {
		return sn, fmt.Errorf("read snapshot: %w", err)
	}
	sn.CreatedAt = time.Unix(0, at).UTC()
	return sn, nil
}

func insertSnapshot(ctx context.Context, tx transaction, sn Snapshot) error {
	_, err := tx.ExecContext(ctx, snapshotInsert, sn.Device, sn.Image, sn.Path, sn.State, sn.CreatedAt.UnixNano())
	if err != nil {
		return fmt.Errorf("insert snapshot %d: %w", sn.Device, err)
	}
	return nil
}

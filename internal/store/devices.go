package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

const (
	deviceColumns = `id, image_id, kind, state, ifnull(origin, 0), bytes, fs_uuid, updated_at`
	devicesKept   = `SELECT ` + deviceColumns + ` FROM devices WHERE state <> 'gone' ORDER BY id`
	devicesOf     = `SELECT ` + deviceColumns + ` FROM devices WHERE state <> 'gone' AND image_id = ? ORDER BY id`
	deviceInsert  = `INSERT INTO devices (image_id, kind, state, origin, bytes, fs_uuid, updated_at) VALUES (?, ?, ?, nullif(?, 0), ?, ?, ?)`
	deviceUpdate  = `UPDATE devices SET state = ?, updated_at = ? WHERE id = ?`

	deviceKept      = `SELECT count(*) FILTER (WHERE kind = 'image' AND id = ?), count(*) FILTER (WHERE kind = 'snapshot') FROM devices WHERE image_id = ? AND state = 'ready'`
	deviceHandedOut = `SELECT EXISTS (SELECT 1 FROM devices d JOIN images i ON i.id = d.image_id
		WHERE d.id = ? AND d.kind = 'snapshot' AND d.state = 'ready' AND i.state <> 'removed')`

	deviceSequence = `INSERT INTO sqlite_sequence (name, seq) SELECT 'devices', 0 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'devices')`
	deviceSkip     = `UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'devices'`

	snapshotColumns = `s.device_id, s.image_id, i.key, s.path, s.state, s.created_at`
	snapshotsAll    = `SELECT ` + snapshotColumns +
		` FROM snapshots s JOIN images i ON i.id = s.image_id WHERE s.state = 'active' ORDER BY s.device_id`
	snapshotsOf = `SELECT ` + snapshotColumns +
		` FROM snapshots s JOIN images i ON i.id = s.image_id WHERE s.state = 'active' AND s.image_id = ? ORDER BY s.device_id`
	snapshotInsert = `INSERT INTO snapshots (device_id, image_id, path, state, created_at) VALUES (?, ?, ?, ?, ?)`
	snapshotGone   = `UPDATE snapshots SET state = 'gone' WHERE device_id = ? AND ? IN ('deleting', 'gone')`

	poolSelect = `SELECT uuid, name, data, metadata, block_size, state, generation, created_at FROM pool`
	poolInsert = `INSERT INTO pool (one, uuid, name, data, metadata, block_size, state, created_at) VALUES (1, ?, ?, ?, ?, ?, 'creating', ?)`
	probe      = `UPDATE pool SET state = state`
	poolReady  = `UPDATE pool SET state = 'ready' WHERE one = 1`
)

// Devices returns every device that is not gone, in the order of their ids.
func (s *Store) Devices(ctx context.Context) ([]Device, error) { return s.devices(ctx, devicesKept) }

// DevicesOf returns the devices of an image that are not gone: its own and its
// snapshots'.
func (s *Store) DevicesOf(ctx context.Context, image int64) ([]Device, error) {
	return s.devices(ctx, devicesOf, image)
}

// Snapshots returns every active snapshot.
func (s *Store) Snapshots(ctx context.Context) ([]Snapshot, error) {
	return s.snapshots(ctx, snapshotsAll)
}

// SnapshotsOf returns the active snapshots of an image.
func (s *Store) SnapshotsOf(ctx context.Context, image int64) ([]Snapshot, error) {
	return s.snapshots(ctx, snapshotsOf, image)
}

func (s *Store) devices(ctx context.Context, query string, args ...any) ([]Device, error) {
	rows, err := s.read.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read devices: %w", err)
	}
	defer rows.Close()
	var list []Device
	for rows.Next() {
		var d Device
		var at int64
		if err := rows.Scan(&d.ID, &d.Image, &d.Kind, &d.State, &d.Origin, &d.Bytes, &d.FSUUID, &at); err != nil {
			return nil, fmt.Errorf("read device: %w", err)
		}
		d.UpdatedAt = time.Unix(0, at).UTC()
		list = append(list, d)
	}
	return list, rows.Err()
}

func (s *Store) snapshots(ctx context.Context, query string, args ...any) ([]Snapshot, error) {
	rows, err := s.read.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read snapshots: %w", err)
	}
	defer rows.Close()
	var list []Snapshot
	for rows.Next() {
		var sn Snapshot
		var at int64
		if err := rows.Scan(&sn.Device, &sn.Image, &sn.Key, &sn.Path, &sn.State, &at); err != nil {
			return nil, fmt.Errorf("read snapshot: %w", err)
		}
		sn.CreatedAt = time.Unix(0, at).UTC()
		list = append(list, sn)
	}
	return list, rows.Err()
}

// AdvanceDeviceIDs makes the ids handed out from now on larger than id. The pool may have
// devices that the journal does not know: somebody else's, or those of a journal that is
// newer than this one, restored from a backup. One in the upper half of all ids is not
// skipped: ids are not used twice, and there would be none left before long. Should it
// ever be handed out, the pool says that it has it.
func (s *Store) AdvanceDeviceIDs(ctx context.Context, id int64) error {
	if id > maxDevice/2 {
		return nil
	}
	return s.tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, deviceSequence); err != nil {
			return fmt.Errorf("skip device ids: %w", err)
		}
		if _, err := tx.ExecContext(ctx, deviceSkip, id); err != nil {
			return fmt.Errorf("skip device ids: %w", err)
		}
		return nil
	})
}

func insertDevice(ctx context.Context, tx *sql.Tx, d Device, now time.Time) (int64, error) {
	res, err := tx.ExecContext(ctx, deviceInsert, d.Image, string(d.Kind), string(d.State), d.Origin, d.Bytes, d.FSUUID,
		now.UnixNano())
	if err != nil {
		return 0, fmt.Errorf("reserve device: %w", err)
	}
	return res.LastInsertId()
}

// kept is what the image has of what was made for it.
func kept(ctx context.Context, tx *sql.Tx, img Image) (k KeptResults, err error) {
	own := int64(0)
	if img.Tree != nil {
		own = img.Tree.Device
	}
	if err := tx.QueryRowContext(ctx, deviceKept, own, img.ID).Scan(&k.Device, &k.Snapshots); err != nil {
		return k, fmt.Errorf("devices of image %d: %w", img.ID, err)
	}
	return k, nil
}

// mayDelete refuses the first step of the removal of a snapshot that was handed out: its
// user may have written to it, so only an operator removes it, by an event.
func mayDelete(ctx context.Context, tx *sql.Tx, id int64, to DeviceState) error {
	if to != DeviceDeleting {
		return nil
	}
	var out bool
	if err := tx.QueryRowContext(ctx, deviceHandedOut, id).Scan(&out); err != nil {
		return fmt.Errorf("look at device %d: %w", id, err)
	}
	if out {
		return fmt.Errorf("snapshot %d: %w: only `consumer rm` removes it", id, ErrHandedOut)
	}
	return nil
}

// moveDevice changes the state of a device, and of the snapshot that it is.
func moveDevice(ctx context.Context, tx *sql.Tx, d Device, now time.Time) error {
	if err := updateDevice(ctx, tx, d, now); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, snapshotGone, d.ID, string(d.State)); err != nil {
		return fmt.Errorf("end snapshot %d: %w", d.ID, err)
	}
	return nil
}

func updateDevice(ctx context.Context, tx *sql.Tx, d Device, now time.Time) error {
	res, err := tx.ExecContext(ctx, deviceUpdate, string(d.State), now.UnixNano(), d.ID)
	if err != nil {
		return fmt.Errorf("update device %d: %w", d.ID, err)
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return errors.Join(fmt.Errorf("update device %d: %w", d.ID, ErrNotFound), err)
	}
	return nil
}

// Pool is the thin pool that belongs to this state directory.
type Pool struct {
	UUID      string    `json:"uuid"`
	Name      string    `json:"name"`
	Data      string    `json:"data"`       // block device or backing file
	Metadata  string    `json:"metadata"`   // block device or backing file
	BlockSize int64     `json:"block_size"` // bytes
	State     string    `json:"state"`      // creating, ready
	CreatedAt time.Time `json:"created_at"`

	Generation uint64 `json:"generation"` // the last known, see PoolGeneration
}

// Pool returns the pool's row, or ErrNotFound when none was created yet.
func (s *Store) Pool(ctx context.Context) (Pool, error) {
	var p Pool
	var at int64
	err := s.read.QueryRowContext(ctx, poolSelect).
		Scan(&p.UUID, &p.Name, &p.Data, &p.Metadata, &p.BlockSize, &p.State, &p.Generation, &at)
	if errors.Is(err, sql.ErrNoRows) {
		return p, fmt.Errorf("pool: %w", ErrNotFound)
	}
	if err != nil {
		return p, fmt.Errorf("read pool: %w", err)
	}
	p.CreatedAt = time.Unix(0, at).UTC()
	return p, nil
}

// BeginPool records the pool that is about to be created.
func (s *Store) BeginPool(ctx context.Context, p Pool) error {
	return s.write(ctx, &Event{Kind: "pool", Stage: "creating"}, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, poolInsert, p.UUID, p.Name, p.Data, p.Metadata, p.BlockSize, s.now().UnixNano())
		if err != nil {
			return fmt.Errorf("record pool: %w", err)
		}
		return nil
	})
}

// PoolCreated records that the pool exists: from now on its metadata is never formatted
// again.
func (s *Store) PoolCreated(ctx context.Context) error {
	return s.write(ctx, &Event{Kind: "pool", Stage: "ready"}, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, poolReady)
		return err
	})
}

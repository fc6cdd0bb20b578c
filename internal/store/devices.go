package store

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// DeviceKind tells an image's own device from a snapshot of it.
type DeviceKind string

// The kinds of thin devices.
const (
	DeviceKindImage    DeviceKind = "image"
	DeviceKindSnapshot DeviceKind = "snapshot"
)

// DeviceState says how far the life of a thin device has come. After a crash, a device
// before DeviceSealed is rolled back; from DeviceSealed on it is rolled forward.
type DeviceState string

// The states of a thin device, in order.
const (
	DeviceReserved  DeviceState = "reserved"  // the id is taken; the pool may or may not have the device
	DeviceCreated   DeviceState = "created"   // the pool has it
	DeviceFormatted DeviceState = "formatted" // it holds an empty file system
	DeviceFilled    DeviceState = "filled"    // the tree is written, synced and unmounted
	DeviceSealed    DeviceState = "sealed"    // the tree was read back and is right; its digest is recorded
	DeviceReady     DeviceState = "ready"     // image: inactive, an origin for snapshots. Snapshot: active
	DeviceDeleting  DeviceState = "deleting"  // its removal has begun; it is never activated again
	DeviceGone      DeviceState = "gone"      // the pool no longer has it
)

// livingStates are the states of devices that the pool has or may have.
var livingStates = []DeviceState{
	DeviceReserved, DeviceCreated, DeviceFormatted, DeviceFilled, DeviceSealed, DeviceReady, DeviceDeleting,
}

// Verified reports whether a device in this state holds a tree that was read back and
// found right.
func (s DeviceState) Verified() bool { return s == DeviceSealed || s == DeviceReady }

// maxDeviceID is the kernel's limit on thin device ids, see also the table devices.
const maxDeviceID = int64(1<<24 - 1)

// Device is a thin device of the pool.
type Device struct {
	ID        int64       `json:"id"`
	Image     int64       `json:"image_id"`
	Kind      DeviceKind  `json:"kind"`
	State     DeviceState `json:"state"`
	Origin    int64       `json:"origin,omitempty"` // of a snapshot
	Bytes     int64       `json:"bytes"`
	FSUUID    string      `json:"fs_uuid,omitempty"`
	UpdatedAt time.Time   `json:"updated_at"`
}

const (
	deviceColumns  = `id, image_id, kind, state, ifnull(origin, 0), bytes, fs_uuid, updated_at`
	devicesPresent = `SELECT ` + deviceColumns + ` FROM devices WHERE state <> 'gone' ORDER BY id`
	devicesOf      = `SELECT ` + deviceColumns + ` FROM devices WHERE state <> 'gone' AND image_id = +? ORDER BY id`
	deviceInsert   = `INSERT INTO devices (id, image_id, kind, state, origin, bytes, fs_uuid, updated_at)
		VALUES (nullif(?, 0), ?, ?, ?, nullif(?, 0), ?, ?, ?)`
	deviceCounts = `SELECT kind, state, count(*) FROM devices WHERE state <> 'gone' GROUP BY kind, state`

	deviceUpdate = `UPDATE devices SET state = ?, updated_at = ? WHERE id = ?`

	keptCounts = `SELECT count(*) FILTER (WHERE kind = 'image' AND id = ?), count(*) FILTER (WHERE kind = 'snapshot')
		FROM devices WHERE image_id = ? AND state = 'ready'`
	deviceHandedOut = `SELECT EXISTS (SELECT 1 FROM devices d JOIN images i ON i.id = d.image_id
		WHERE d.id = +? AND d.kind = 'snapshot' AND d.state = 'ready' AND i.state <> 'removed')`

	deviceSequenceInit = `INSERT INTO sqlite_sequence (name, seq) SELECT 'devices', 0
		WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'devices')`
	deviceSequenceAdvance = `UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'devices'`
)

// Devices returns every device except those in DeviceGone, in the order of their ids.
func (s *Store) Devices(ctx context.Context) ([]Device, error) {
	return queryAll(ctx, s.readDB, "devices", scanDevice, devicesPresent)
}

// DevicesOf returns an image's own device and its snapshots' devices, except those in
// DeviceGone.
func (s *Store) DevicesOf(ctx context.Context, image int64) ([]Device, error) {
	return queryAll(ctx, s.readDB, "devices", scanDevice, devicesOf, image)
}

// DeviceCount is how many devices of a kind are in a state.
type DeviceCount struct {
	Kind  DeviceKind
	State DeviceState
	N     int
}

// CountDevices counts the devices, except those in DeviceGone. There is a count for every
// kind and state, also if it is 0. It reads an index, and no rows.
func (s *Store) CountDevices(ctx context.Context) ([]DeviceCount, error) {
	found, err := queryAll(ctx, s.readDB, "counts of devices", scanDeviceCount, deviceCounts)
	if err != nil {
		return nil, err
	}
	for _, kind := range []DeviceKind{DeviceKindImage, DeviceKindSnapshot} {
		for _, state := range livingStates {
			same := func(c DeviceCount) bool { return c.Kind == kind && c.State == state }
			if !slices.ContainsFunc(found, same) {
				found = append(found, DeviceCount{Kind: kind, State: state})
			}
		}
	}
	return found, nil
}

func scanDeviceCount(row scanner) (c DeviceCount, err error) {
	err = row.Scan(&c.Kind, &c.State, &c.N)
	return c, err
}

// SetDeviceState records one of the two steps of a device's removal, outside of any
// attempt. It is not an event of the image. It returns ErrHandedOut for a snapshot that
// was handed out, unless an operator removed its image.
func (s *Store) SetDeviceState(ctx context.Context, id int64, to DeviceState) error {
	return s.write(ctx, labelled("device::"+string(to)), func(tx transaction) error {
		if err := checkNotHandedOut(ctx, tx, id, to); err != nil {
			return err
		}
		return setDeviceState(ctx, tx, id, to, s.now())
	})
}

// AdvanceDeviceIDs makes all ids handed out later larger than id. The pool may have
// devices unknown to the journal. They are foreign, or come from a newer journal if this
// one was restored from a backup.
//
// An id in the upper half of the range is not skipped: ids are never reused, and soon
// none would be left. If such an id is ever handed out, the pool refuses to create the
// device.
func (s *Store) AdvanceDeviceIDs(ctx context.Context, id int64) error {
	if id > maxDeviceID/2 {
		return nil
	}
	return s.inTx(ctx, func(tx transaction) error {
		return advanceIDs(ctx, tx, deviceSequenceInit, deviceSequenceAdvance, id)
	})
}

// advanceIDs moves the sequence of a table to id, if it is lower. The query start creates
// the sequence if the table never had a row.
func advanceIDs(ctx context.Context, tx transaction, start, advance string, id int64) error {
	if _, err := tx.ExecContext(ctx, start); err != nil {
		return fmt.Errorf("skip ids: %w", err)
	}
	if _, err := tx.ExecContext(ctx, advance, id); err != nil {
		return fmt.Errorf("skip ids: %w", err)
	}
	return nil
}

func scanDevice(row scanner) (Device, error) {
	var d Device
	var at int64
	if err := row.Scan(&d.ID, &d.Image, &d.Kind, &d.State, &d.Origin, &d.Bytes, &d.FSUUID, &at); err != nil {
		return d, fmt.Errorf("read device: %w", err)
	}
	d.UpdatedAt = time.Unix(0, at).UTC()
	return d, nil
}

// insertDevice inserts a device and returns its id. It takes the next id if d has none.
func insertDevice(ctx context.Context, tx transaction, d Device, now time.Time) (int64, error) {
	res, err := tx.ExecContext(ctx, deviceInsert, d.ID, d.Image, string(d.Kind), string(d.State), d.Origin, d.Bytes,
		d.FSUUID, now.UnixNano())
	if err != nil {
		return 0, fmt.Errorf("reserve device: %w", err)
	}
	return res.LastInsertId()
}

// keptResults counts the image's devices in DeviceReady.
func keptResults(ctx context.Context, tx transaction, img Image) (kept KeptResults, err error) {
	own := int64(0)
	if img.Tree != nil {
		own = img.Tree.Device
	}
	if err := tx.QueryRowContext(ctx, keptCounts, own, img.ID).Scan(&kept.Device, &kept.Snapshots); err != nil {
		return kept, fmt.Errorf("devices of image %d: %w", img.ID, err)
	}
	return kept, nil
}

// checkNotHandedOut refuses the first step of the removal of a snapshot that was handed
// out. Its user may have written to it, so only an operator removes it, by an event.
func checkNotHandedOut(ctx context.Context, tx transaction, id int64, to DeviceState) error {
	if to != DeviceDeleting {
		return nil
	}
	handedOut, err := queryBool(ctx, tx, deviceHandedOut, id)
	if err != nil {
		return fmt.Errorf("look at device %d: %w", id, err)
	}
	if handedOut {
		return fmt.Errorf("snapshot %d: %w: only `consumer rm` removes it", id, ErrHandedOut)
	}
	return nil
}

// setDeviceState changes the state of a device. Its snapshot ends with it.
func setDeviceState(ctx context.Context, tx transaction, id int64, to DeviceState, now time.Time) error {
	err := changeOne(ctx, tx, fmt.Sprintf("update device %d", id), deviceUpdate, string(to), now.UnixNano(), id)
	if err != nil {
		return err
	}
	if to != DeviceDeleting && to != DeviceGone {
		return nil
	}
	if _, err := tx.ExecContext(ctx, snapshotGone, id); err != nil {
		return fmt.Errorf("end snapshot %d: %w", id, err)
	}
	return nil
}

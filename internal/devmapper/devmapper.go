// Package devmapper manages one device-mapper thin pool: thin devices, their snapshots,
// and the ext4 on them. It knows nothing of the source of their bytes.
//
// Create makes a pool, Open attaches and checks an existing one; both return a Pool. A
// thin device is made by CreateThin or CreateSnapshot, activated, filled through
// MountDetached, and deactivated. Active and Thins list devices. RepairMetadata, Identify
// and CheckReplaceable are for pools in trouble.
//
// The kernel is the only state. A Pool holds nothing that a crash could lose, and every
// method may be called again after one.
//
// A device's name is cim-<pool>-<kind>-<id>, its dm UUID is CIM-<pool uuid>-<id>. The
// UUID is a lock: the kernel refuses a second device of the same UUID, and two active
// devices on one thin id would silently destroy each other's files.
//
// Metadata and data each carry a mark of the pool and of a generation, see
// RaiseGeneration. Open compares the marks before it writes anything, so it refuses a
// swapped disk, another pool's file, and a copy from an earlier time.
//
// Not promised: exclusion of other programs. Open notices a second manager with its own
// UUID for the same pool, but nothing does so later. Needs Linux 5.8, root, and sysfs and
// procfs in their usual places.
//
// Package dmctl makes the device-mapper calls, package ext4 makes and mounts file
// systems, and package tool runs mke2fs and the thin-provisioning-tools. Read pool.go and
// thin.go first.
package devmapper

import (
	"errors"
)

// ID is the number of a thin device within its pool.
type ID int64

// maxID is the largest thin device id: the kernel keeps 24 bits (MAX_DEV_ID in
// dm-thin.c).
const maxID ID = 1<<24 - 1

// Kind is the purpose of a thin device. It is part of the device's name, for people;
// identity is pool and ID.
type Kind string

// The kinds of thin devices.
const (
	KindImage    Kind = "image"    // an image is unpacked into it; inactive once it is sealed
	KindSnapshot Kind = "snapshot" // a copy-on-write snapshot of an image, active for use
)

// In the chain of an error, a sentinel precedes the errno it gives a meaning to.
var (
	// ErrUnavailable is returned when this machine cannot have a thin pool. The text says
	// what to do about it.
	ErrUnavailable = errors.New("device-mapper thin provisioning is not available")
	// ErrForeign is returned when a name or a device of the pool is taken by something
	// else, or is not as this package made it.
	ErrForeign = errors.New("not this program's")
	// ErrNoSuperblock is returned when the metadata device holds no pool.
	ErrNoSuperblock = errors.New("metadata device holds no thin pool")
	// ErrHasSuperblock is returned when the metadata device holds a pool, because that
	// pool would be lost.
	ErrHasSuperblock = errors.New("metadata device holds a thin pool")
	// ErrReadOnly is returned when the pool takes no changes: its metadata is full, needs
	// a check, or cannot be written.
	ErrReadOnly = errors.New("thin pool is read-only")
	// ErrNoSpace is returned when the pool has no free data blocks.
	ErrNoSpace = errors.New("thin pool is out of data space")
	// ErrNotFound is returned when the pool has no such thin device, or the device is not
	// active.
	ErrNotFound = errors.New("no such thin device")
	// ErrExists is returned when the pool already has a thin device of this id.
	ErrExists = errors.New("thin device exists")
	// ErrBusy is returned when a device is in use. The text names the holder if one can
	// be found.
	ErrBusy = errors.New("device is in use")
)

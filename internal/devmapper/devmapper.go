// Package devmapper manages one device-mapper thin pool: thin devices, their snapshots,
// the ext4 on them, and detached mounts. It knows nothing of where the bytes come from.
//
// It talks to the kernel by the ioctls of /dev/mapper/control (linux/dm-ioctl.h), so a
// failed step has a real errno and no child process can be left half-way; children are
// mke2fs and the thin-provisioning-tools. The kernel is the only state: a Pool holds
// nothing that a crash could lose, and every method may be called again after one.
//
// Names: a device of ours is cim-<pool>-<kind>-<id>, its dm UUID CIM-<pool uuid>-<id>.
// The UUID is a lock: the kernel refuses a second device of the same UUID, and two active
// devices on one thin id would destroy each other's files without a word.
//
// Not promised: exclusion of other programs. Two managers that use one pool under
// different UUIDs are told apart when the pool is opened, not afterwards. Needs Linux
// 5.8, root, and sysfs and procfs where Linux keeps them.
//
// Read pool.go and thin.go first, then table.go and control.go for what goes to the
// kernel.
package devmapper

import (
	"errors"
)

// ID is the number of a thin device within its pool.
type ID int64

// maxID is the largest thin device id: the kernel keeps 24 bits (MAX_DEV_ID in
// dm-thin.c).
const maxID ID = 1<<24 - 1

// Kind tells what a thin device is for. It is part of the device's name, for people;
// identity is pool and ID.
type Kind string

// The kinds of thin devices.
const (
	KindImage    Kind = "image"    // an image is unpacked into it; inactive once it is sealed
	KindSnapshot Kind = "snapshot" // a copy-on-write snapshot of an image, active for use
)

// The sentinels stand in the chain before the errno that they give a meaning to.
var (
	// ErrUnavailable says that this machine cannot have a thin pool, and what to do about
	// it.
	ErrUnavailable = errors.New("device-mapper thin provisioning is not available")
	// ErrForeign says that something is there under our name or on our devices which is
	// not ours, or not as we made it.
	ErrForeign = errors.New("not this program's")
	// ErrNoSuperblock says that the metadata device holds no pool.
	ErrNoSuperblock = errors.New("metadata device holds no thin pool")
	// ErrHasSuperblock says that the metadata device holds a pool, which would be lost.
	ErrHasSuperblock = errors.New("metadata device holds a thin pool")
	// ErrReadOnly says that the pool takes no changes: its metadata is full, needs a
	// check, or cannot be written.
	ErrReadOnly = errors.New("thin pool is read-only")
	// ErrNoSpace says that the pool has no free data blocks.
	ErrNoSpace = errors.New("thin pool is out of data space")
	// ErrNotFound says that the pool has no such thin device, or that the device is not
	// active.
	ErrNotFound = errors.New("no such thin device")
	// ErrExists says that the pool has a thin device of this id already.
	ErrExists = errors.New("thin device exists")
	// ErrBusy says that a device is in use; the text names the holder where one can be
	// found.
	ErrBusy = errors.New("device is in use")
)

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
	"fmt"
	"strconv"
	"strings"

	"github.com/google/uuid"
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

const (
	sector          = 512
	minBlockSize    = 64 << 10 // DATA_DEV_BLOCK_SIZE_MIN_SECTORS in dm-thin.c
	maxBlockSize    = 1 << 30  // DATA_DEV_BLOCK_SIZE_MAX_SECTORS
	maxPoolName     = 64       // leaves room for prefix, kind and id within DM_NAME_LEN
	namePrefix      = "cim-"
	uuidPrefix      = "CIM-"
	poolSuffix      = "-pool"
	minMetadataSize = 2 << 20
	maxMetadataSize = 16 << 30
)

// Config names a pool and what it lies on.
type Config struct {
	Name      string // part of every device's name: letters, digits, `-`, `_`, `.`
	UUID      string // part of every device's dm UUID: a UUID in lower case
	Data      string // block device, or file that is put behind a loop device
	Metadata  string // likewise
	BlockSize int64  // bytes: a multiple of 64 KiB up to 1 GiB, fixed for the pool's life

	Generation uint64 // the last one known, see Renew: Open refuses a pool that has not come so far
}

func (c Config) check() error {
	var errs []error
	if !plain(c.Name, maxPoolName) {
		errs = append(errs, fmt.Errorf("pool name %q: 1 to %d letters, digits, '-', '_', '.'", c.Name, maxPoolName))
	}
	if c.ownerOf() == uuid.Nil {
		errs = append(errs, fmt.Errorf("pool UUID %q: not a UUID in lower case", c.UUID))
	}
	if c.BlockSize < minBlockSize || c.BlockSize > maxBlockSize || c.BlockSize%minBlockSize != 0 {
		errs = append(errs, fmt.Errorf("pool block size %d: a multiple of %d up to %d",
			c.BlockSize, minBlockSize, maxBlockSize))
	}
	if c.Data == "" || c.Metadata == "" || c.Data == c.Metadata {
		errs = append(errs, errors.New("a pool needs two devices or files, one for data and one for metadata"))
	}
	return errors.Join(errs...)
}

// plain tells whether s can be part of a dm name without being mangled by udev or taken
// for a path.
func plain(s string, most int) bool {
	odd := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.", r)
	}
	return s != "" && len(s) <= most && s[0] != '.' && !strings.ContainsFunc(s, odd)
}

func (c Config) poolName() string { return namePrefix + c.Name + poolSuffix }
func (c Config) poolUUID() string { return c.uuidPrefix() + poolSuffix[1:] }

func (c Config) uuidPrefix() string { return uuidPrefix + c.UUID + "-" }

func (c Config) thinName(kind Kind, id ID) string {
	return fmt.Sprintf("%s%s-%s-%d", namePrefix, c.Name, kind, id)
}

func (c Config) thinUUID(id ID) string { return c.uuidPrefix() + strconv.FormatInt(int64(id), 10) }

// thinID is the inverse of thinUUID. Other pools' devices, and the pool's own, have none.
func (c Config) thinID(uuid string) (ID, bool) {
	rest, ours := strings.CutPrefix(uuid, c.uuidPrefix())
	if !ours {
		return 0, false
	}
	n, err := strconv.ParseInt(rest, 10, 64)
	id := ID(n)
	return id, err == nil && id >= 0 && id <= maxID && c.thinUUID(id) == uuid
}

// ownsName tells whether a name is one that a device of this pool has.
func (c Config) ownsName(name string) bool {
	n, err := strconv.ParseInt(name[strings.LastIndexByte(name, '-')+1:], 10, 64)
	return name == c.poolName() || err == nil && c.kindOf(name, ID(n)) != ""
}

// kindOf reads the kind from a device's name; it is empty if an operator renamed the
// device.
func (c Config) kindOf(name string, id ID) Kind {
	for _, kind := range []Kind{KindImage, KindSnapshot, kindStamp} {
		if name == c.thinName(kind, id) {
			return kind
		}
	}
	return ""
}

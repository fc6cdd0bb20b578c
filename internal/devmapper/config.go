package devmapper

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"imagemanager.internal/internal/devmapper/dmctl"
)

const (
	sectorSize      = dmctl.SectorSize
	minBlockSize    = 64 << 10 // DATA_DEV_BLOCK_SIZE_MIN_SECTORS in dm-thin.c
	maxBlockSize    = 1 << 30  // DATA_DEV_BLOCK_SIZE_MAX_SECTORS
	maxPoolName     = 64       // leaves room for prefix, kind and id within DM_NAME_LEN
	namePrefix      = "cim-"
	uuidPrefix      = "CIM-"
	poolSuffix      = "-pool"
	minMetadataSize = 2 << 20
	maxMetadataSize = 16 << 30
)

// Config names a pool and the devices under it.
type Config struct {
	Name      string // part of every device's name: letters, digits, `-`, `_`, `.`
	UUID      string // part of every device's dm UUID: a UUID in lower case
	Data      string // block device, or a file, which gets a loop device
	Metadata  string // likewise
	BlockSize int64  // bytes: a multiple of 64 KiB up to 1 GiB, fixed for the pool's life

	Generation uint64 // the last one known, see RaiseGeneration: Open refuses an older pool

	// Observe is called after each ioctl of the pool with one of Commands; it may be nil.
	Observe func(command string, took time.Duration)
}

// Commands returns the names of the device-mapper's ioctls that a pool uses.
func Commands() []string { return dmctl.Commands() }

func (c Config) check() error {
	var errs []error
	if !validName(c.Name, maxPoolName) {
		errs = append(errs, fmt.Errorf("pool name %q: 1 to %d letters, digits, '-', '_', '.'", c.Name, maxPoolName))
	}
	if c.owner() == uuid.Nil {
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

// validName reports whether s can be part of a dm name: udev mangles other characters,
// and some make a path of it.
func validName(s string, most int) bool {
	odd := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.", r)
	}
	return s != "" && len(s) <= most && s[0] != '.' && !strings.ContainsFunc(s, odd)
}

// owner returns the pool's mark in its metadata superblock: the UUID, in a field that the
// kernel preserves and does not use. While no pool is active there is no dm UUID to ask;
// the mark then tells the pool's metadata from a swapped or restored file. Identify reads
// the UUID from it. For an invalid UUID it is zero, and so nobody's.
func (c Config) owner() uuid.UUID {
	id, err := uuid.Parse(c.UUID)
	if err != nil || id.String() != c.UUID {
		return uuid.Nil
	}
	return id
}

func (c Config) poolName() string { return namePrefix + c.Name + poolSuffix }

func (c Config) poolUUID() string { return c.uuidPrefix() + poolSuffix[1:] }

func (c Config) uuidPrefix() string { return uuidPrefix + c.UUID + "-" }

func (c Config) thinName(kind Kind, id ID) string {
	return fmt.Sprintf("%s%s-%s-%d", namePrefix, c.Name, kind, id)
}

func (c Config) thinUUID(id ID) string { return c.uuidPrefix() + strconv.FormatInt(int64(id), 10) }

// thinID is the inverse of thinUUID. It finds no id in the UUID of another pool's device,
// or of the pool itself.
func (c Config) thinID(uuid string) (ID, bool) {
	rest, found := strings.CutPrefix(uuid, c.uuidPrefix())
	if !found {
		return 0, false
	}
	n, err := strconv.ParseInt(rest, 10, 64)
	id := ID(n)
	return id, err == nil && id >= 0 && id <= maxID && c.thinUUID(id) == uuid
}

// ownsName reports whether a device of this pool may have the name.
func (c Config) ownsName(name string) bool {
	n, err := strconv.ParseInt(name[strings.LastIndexByte(name, '-')+1:], 10, 64)
	return name == c.poolName() || err == nil && c.kindOf(name, ID(n)) != ""
}

// kindOf returns the kind in a device's name. It is empty if an operator renamed the
// device.
func (c Config) kindOf(name string, id ID) Kind {
	for _, kind := range []Kind{KindImage, KindSnapshot, kindStamp} {
		if name == c.thinName(kind, id) {
			return kind
		}
	}
	return ""
}

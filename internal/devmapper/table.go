package devmapper

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// checkSame tells what differs from our way.
func (t poolTable) checkSame(metadata, data blockDevice, blockSize int64) error {
	switch {
	case t.metadata != majmin(metadata.dev):
		return fmt.Errorf("has its metadata on device %s, not on %s (%s)", t.metadata, metadata.path, metadata.source)
	case t.data != majmin(data.dev):
		return fmt.Errorf("has its data on device %s, not on %s (%s)", t.data, data.path, data.source)
	case t.block*sector != blockSize:
		return fmt.Errorf("has blocks of %d bytes, not %d", t.block*sector, blockSize)
	case slices.Contains(t.features, "skip_block_zeroing"):
		return errors.New("does not zero new blocks: deleted data would show up in other images")
	case !slices.Contains(t.features, "error_if_no_space"):
		return errors.New("hangs writers when it is full (no error_if_no_space)")
	case slices.Contains(t.features, "read_only"):
		return errors.New("was activated read-only")
	}
	return nil
}

// errMalformed says that the kernel, or a device, gave bytes that do not have the
// documented form.
var errMalformed = errors.New("malformed")

const (
	targetPool = "thin-pool"
	targetThin = "thin"
)

// table is a dm table of one target. For the kernel's answers, params is the target's
// status or table text.
type table struct {
	sectors uint64
	target  string
	params  string
}

// pack lays the table out as struct dm_target_spec and its parameters, NUL-terminated, up
// to a multiple of eight.
func (t table) pack() []byte {
	size := (unix.SizeofDmTargetSpec + len(t.params) + 1 + 7) &^ 7
	buf := make([]byte, size)
	binary.NativeEndian.PutUint64(buf[8:], t.sectors)
	binary.NativeEndian.PutUint32(buf[20:], uint32(size))
	copy(buf[24:40], t.target)
	copy(buf[unix.SizeofDmTargetSpec:], t.params)
	return buf
}

// unpackTable reads the first target of an answer to DM_TABLE_STATUS.
func unpackTable(data []byte) (table, error) {
	if len(data) < unix.SizeofDmTargetSpec {
		return table{}, fmt.Errorf("%w: %d bytes", errMalformed, len(data))
	}
	t := table{
		sectors: binary.NativeEndian.Uint64(data[8:]),
		target:  text(data[24:40]),
	}
	t.params = strings.TrimSpace(text(data[unix.SizeofDmTargetSpec:]))
	return t, nil
}

// unpackNames reads an answer to DM_LIST_DEVICES: dev u64, next u32, name; next is
// relative, 0 ends the list. An empty list is one entry with dev 0.
func unpackNames(data []byte) ([]string, error) {
	var names []string
	for {
		if len(data) < 12 {
			if len(names) == 0 && len(data) == 0 {
				return nil, nil
			}
			return nil, fmt.Errorf("%w: entry of %d bytes", errMalformed, len(data))
		}
		dev, next := binary.NativeEndian.Uint64(data), binary.NativeEndian.Uint32(data[8:])
		end := bytes.IndexByte(data[12:], 0)
		if end < 0 {
			return nil, fmt.Errorf("%w: name without end", errMalformed)
		}
		if dev != 0 {
			names = append(names, string(data[12:12+end]))
		}
		if next == 0 {
			return names, nil
		}
		if next < 13 || int64(next) > int64(len(data)) {
			return nil, fmt.Errorf("%w: next entry at %d of %d", errMalformed, next, len(data))
		}
		data = data[next:]
	}
}

// poolTable is what a thin-pool target is made of.
type poolTable struct {
	metadata, data string // device numbers, major:minor
	block          int64  // sectors
	features       []string
}

// newPoolTable is the table of our pools. Zeroing stays on: without it a new device shows
// what a deleted one held. With error_if_no_space a full pool fails writers at once
// instead of hanging them for a minute.
func newPoolTable(metadata, data blockDevice, blockSize int64) table {
	blocks := data.size / blockSize
	lowWater := max(blocks/20, 1) // blocks; below, the kernel sends an event
	return table{
		sectors: uint64(blocks * (blockSize / sector)),
		target:  targetPool,
		params: fmt.Sprintf("%s %s %d %d 1 error_if_no_space",
			majmin(metadata.dev), majmin(data.dev), blockSize/sector, lowWater),
	}
}

// parsePoolTable reads `metadata data block low_water n feature...`.
func parsePoolTable(t table) (poolTable, error) {
	f := strings.Fields(t.params)
	if t.target != targetPool || len(f) < 5 {
		return poolTable{}, fmt.Errorf("%w: %s %q", errMalformed, t.target, t.params)
	}
	block, err := strconv.ParseInt(f[2], 10, 64)
	n, err2 := strconv.Atoi(f[4])
	if err := errors.Join(err, err2); err != nil || n < 0 || n != len(f)-5 {
		return poolTable{}, fmt.Errorf("%w: %s %q", errMalformed, t.target, t.params)
	}
	return poolTable{metadata: f[0], data: f[1], block: block, features: f[5:]}, nil
}

// newThinTable is the table of a thin device of so many bytes.
func newThinTable(pool string, id ID, bytes int64) table {
	return table{sectors: uint64(bytes / sector), target: targetThin, params: fmt.Sprintf("%s %d", pool, id)}
}

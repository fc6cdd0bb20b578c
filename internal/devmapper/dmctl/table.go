package dmctl

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// SectorSize is the unit of tables, in bytes.
const SectorSize = 512

// Table is a table of one target. In an answer of Status, Params is the target's status.
type Table struct {
	Sectors uint64 // size of the device
	Target  string // type, such as "linear"
	Params  string
}

// pack lays the table out as struct dm_target_spec and its parameters, NUL-terminated, up
// to a multiple of eight.
func (t Table) pack() []byte {
	size := (unix.SizeofDmTargetSpec + len(t.Params) + 1 + 7) &^ 7
	buf := make([]byte, size)
	binary.NativeEndian.PutUint64(buf[8:], t.Sectors)
	binary.NativeEndian.PutUint32(buf[20:], uint32(size))
	copy(buf[24:40], t.Target)
	copy(buf[unix.SizeofDmTargetSpec:], t.Params)
	return buf
}

// unpackTable reads the first target of an answer to DM_TABLE_STATUS.
func unpackTable(data []byte) (Table, error) {
	if len(data) < unix.SizeofDmTargetSpec {
		return Table{}, fmt.Errorf("%w: %d bytes", errMalformed, len(data))
	}
	return Table{
		Sectors: binary.NativeEndian.Uint64(data[8:]),
		Target:  text(data[24:40]),
		Params:  strings.TrimSpace(text(data[unix.SizeofDmTargetSpec:])),
	}, nil
}

// unpackNames reads an answer to DM_LIST_DEVICES: dev u64, next u32, name. next is
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

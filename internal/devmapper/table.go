package devmapper

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"imagemanager.internal/internal/devmapper/dmctl"
)

// errMalformed marks bytes of the kernel or of a device without the documented form.
var errMalformed = errors.New("malformed")

const (
	targetPool = "thin-pool"
	targetThin = "thin"
)

// poolTable is the content of a thin-pool table.
type poolTable struct {
	metadata, data string // device numbers, major:minor
	block          int64  // sectors
	features       []string
}

// newPoolTable returns the table of a pool. Zeroing stays on: without it a new device
// shows the contents of a deleted one. With error_if_no_space a full pool fails writers
// at once instead of hanging them for a minute.
func newPoolTable(metadata, data blockDevice, blockSize int64) dmctl.Table {
	blocks := data.size / blockSize
	lowWater := max(blocks/20, 1) // blocks; below, the kernel sends an event
	return dmctl.Table{
		Sectors: uint64(blocks * (blockSize / sectorSize)),
		Target:  targetPool,
		Params: fmt.Sprintf("%s %s %d %d 1 error_if_no_space",
			dmctl.MajorMinor(metadata.dev), dmctl.MajorMinor(data.dev), blockSize/sectorSize, lowWater),
	}
}

// parsePoolTable reads `metadata data block low_water n feature...`.
func parsePoolTable(t dmctl.Table) (poolTable, error) {
	f := strings.Fields(t.Params)
	if t.Target != targetPool || len(f) < 5 {
		return poolTable{}, fmt.Errorf("%w: %s %q", errMalformed, t.Target, t.Params)
	}
	block, err := strconv.ParseInt(f[2], 10, 64)
	n, err2 := strconv.Atoi(f[4])
	if err := errors.Join(err, err2); err != nil || n < 0 || n != len(f)-5 {
		return poolTable{}, fmt.Errorf("%w: %s %q", errMalformed, t.Target, t.Params)
	}
	return poolTable{metadata: f[0], data: f[1], block: block, features: f[5:]}, nil
}

// checkSame returns an error about the first difference from the table that start would
// load.
func (t poolTable) checkSame(metadata, data blockDevice, blockSize int64) error {
	switch {
	case t.metadata != dmctl.MajorMinor(metadata.dev):
		return fmt.Errorf("has its metadata on device %s, not on %s (%s)", t.metadata, metadata.path, metadata.source)
	case t.data != dmctl.MajorMinor(data.dev):
		return fmt.Errorf("has its data on device %s, not on %s (%s)", t.data, data.path, data.source)
	case t.block*sectorSize != blockSize:
		return fmt.Errorf("has blocks of %d bytes, not %d", t.block*sectorSize, blockSize)
	case slices.Contains(t.features, "skip_block_zeroing"):
		return errors.New("does not zero new blocks: deleted data would show up in other images")
	case !slices.Contains(t.features, "error_if_no_space"):
		return errors.New("hangs writers when it is full (no error_if_no_space)")
	case slices.Contains(t.features, "read_only"):
		return errors.New("was activated read-only")
	}
	return nil
}

// newThinTable returns the table of a thin device of the given size.
func newThinTable(pool string, id ID, bytes int64) dmctl.Table {
	return dmctl.Table{Sectors: uint64(bytes / sectorSize), Target: targetThin, Params: fmt.Sprintf("%s %d", pool, id)}
}

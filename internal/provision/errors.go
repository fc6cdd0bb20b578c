package provision

import (
	"errors"
	"fmt"

	"imagemanager.internal/internal/devmapper"
)

var (
	// ErrReadBack is returned when a device does not hold what was written to it.
	ErrReadBack = errors.New("read back differently")
	// ErrPoolLow is returned when the pool has no room for an image now.
	ErrPoolLow = errors.New("thin pool is low on space")
	// ErrDiskLow is returned when a file system with our files has no room now.
	ErrDiskLow = errors.New("disk is low on space")
	// ErrTooSmall is returned when an image cannot fit its device.
	ErrTooSmall = errors.New("image does not fit the device")
	// ErrResultLost is returned when a recorded result is no longer there.
	ErrResultLost = errors.New("recorded result is gone")
)

// CheckWritable returns why a pool takes no changes at all, and what to do about it.
func CheckWritable(s devmapper.Status) error {
	if !s.NeedsCheck && (s.Mode == devmapper.ModeReadWrite || s.Mode == devmapper.ModeOutOfDataSpace) {
		return nil
	}
	why := fmt.Sprintf("its mode is %s", s.Mode)
	if s.NeedsCheck {
		why = "its metadata need a check"
	}
	if s.TotalMetadata > 0 { // full metadata have to be enlarged
		why += fmt.Sprintf("; %d %% of the metadata are used", 100*s.UsedMetadata/s.TotalMetadata)
	}
	return fmt.Errorf("%w: %s: stop the daemon and run `consumer pool repair`", devmapper.ErrReadOnly, why)
}

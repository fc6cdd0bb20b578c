package devmapper

import (
	"errors"
	"fmt"
	"strings"

	"imagemanager.internal/internal/devmapper/dmctl"
	"imagemanager.internal/internal/devmapper/tool"
)

// openControl opens the device-mapper; its absence is ErrUnavailable.
func openControl() (*dmctl.Control, error) {
	ctl, err := dmctl.Open(kindByUUID)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return ctl, nil
}

// kindByUUID names the kind of a device for the failpoints.
func kindByUUID(uuid string) string {
	if strings.HasSuffix(uuid, poolSuffix) {
		return "pool"
	}
	return "thin"
}

// workPath returns the path for this program's own work on the device at path. For a
// device-mapper device it is the kernel's node, because udevd never removes that one.
func workPath(path string) (string, error) {
	if !strings.HasPrefix(path, dmctl.Dir) {
		return path, nil
	}
	ctl, err := openControl()
	if err != nil {
		return "", err
	}
	defer ctl.Close()
	return ctl.WorkPath(path)
}

// unavailable adds ErrUnavailable to an error about a missing program.
func unavailable(err error) error {
	if errors.Is(err, tool.ErrMissing) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

package devmapper

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/devmapper/ext4"
)

// MakeFilesystem makes an empty ext4 with the given UUID on a new thin device, as
// ext4.Make does. ErrUnavailable is returned when there is no mke2fs.
func MakeFilesystem(ctx context.Context, path, uuid string) error {
	node, err := workPath(path)
	if err == nil {
		err = unavailable(ext4.Make(ctx, node, uuid))
	}
	if err != nil {
		return fmt.Errorf("make ext4 on %s: %w", path, err)
	}
	return nil
}

// MountDetached mounts the ext4 on a thin device, as ext4.MountDetached does. If the
// device is busy it waits a few seconds, because of a mount closed just now. Then ErrBusy
// is returned: the device is mounted in another mode, or open exclusively.
func MountDetached(path string, mode ext4.MountMode) (m *ext4.Mount, err error) {
	node, err := workPath(path)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", path, err)
	}
	err = retryWhile(busyTimeout, isErrno(unix.EBUSY), func() error {
		m, err = ext4.MountDetached(node, mode)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", path, withHoldersOf(err, node))
	}
	return m, nil
}

// OpenExclusive opens a thin device for direct reads and writes of its blocks, while
// nothing is mounted from it and nobody else has it so. It waits and fails as
// MountDetached does.
func OpenExclusive(path string) (*os.File, error) {
	node, err := workPath(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return openExclusive(node, os.O_RDWR|unix.O_DIRECT)
}

// FilesystemUUID reads the UUID of the ext4 on a thin device, mounted or not.
// ext4.ErrNoFilesystem is returned when there is none.
func FilesystemUUID(path string) (string, error) {
	node, err := workPath(path)
	if err != nil {
		return "", err
	}
	return ext4.UUID(node)
}

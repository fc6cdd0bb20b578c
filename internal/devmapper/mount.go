package devmapper

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/devmapper/dmctl"
	"imagemanager.internal/internal/devmapper/ext4"
)

// Mount mounts the ext4 on a thin device at a directory, for people: set-uid bits and
// device nodes mean nothing in it. ErrBusy names the holders of a device that is open
// exclusively, or mounted in another mode.
func Mount(path, dir string, writable bool) error {
	node, err := workPath(path)
	if err == nil {
		err = withHoldersOf(ext4.MountAt(node, dir, writable), node)
	}
	if err != nil {
		return fmt.Errorf("mount %s at %s: %w", path, dir, err)
	}
	return nil
}

// Unmount unmounts what is mounted at a directory. ErrBusy names who uses it.
func Unmount(dir string) error {
	var st unix.Stat_t
	err := unix.Stat(dir, &st)
	if err == nil {
		err = unix.Unmount(dir, unix.UMOUNT_NOFOLLOW)
	}
	if errors.Is(err, unix.EBUSY) {
		err = fmt.Errorf("%w (%s): %w", ErrBusy, strings.Join(usersOf(st.Dev), "; "), err)
	}
	if err != nil {
		return fmt.Errorf("umount %s: %w", dir, err)
	}
	return nil
}

// MountPoints returns where this process sees a device mounted, the last mount first. A
// device that does not exist is not mounted.
func MountPoints(path string) ([]string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil, nil
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	mounts, err := readMounts("/proc/self")
	if err != nil {
		return nil, err
	}
	var points []string
	for _, m := range slices.Backward(mounts) {
		if m.device == dmctl.MajorMinor(st.Rdev) {
			points = append(points, m.point)
		}
	}
	return points, nil
}

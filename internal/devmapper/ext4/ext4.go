// Package ext4 makes ext4 file systems on block devices, mounts them detached, and reads
// their UUID.
//
// Make gives a device of a certain size the same file system on every host, with every
// mke2fs. MountDetached mounts it without a mount point: no other process sees the mount,
// and it ends with this process. UUID identifies a file system, mounted or not.
//
// A file system must have been made by Make: the kernel's ext4 does not promise to
// survive a crafted one. Needs Linux 5.8 and root.
package ext4

import (
	"errors"
	"fmt"
	"os"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

const filesystem = "ext4"

// ErrNoFilesystem is returned when a device holds no ext4 file system.
var ErrNoFilesystem = errors.New("no ext4 file system")

// Probe returns nil if this machine can make and mount file systems. The kernel loads its
// ext4 module for the answer. The error says what is missing and what to do about it.
func Probe() error {
	if err := ProbeKernel(); err != nil {
		return err
	}
	_, err := mke2fs.Find()
	return err
}

// ProbeKernel is the part of Probe about the kernel.
func ProbeKernel() error {
	fd, err := unix.Fsopen(filesystem, unix.FSOPEN_CLOEXEC)
	switch {
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("the kernel has no fsopen: %w (Linux 5.8 or later)", err)
	case err != nil:
		return fmt.Errorf("fsopen %s: %w (modprobe %s; CAP_SYS_ADMIN)", filesystem, err, filesystem)
	}
	return unix.Close(fd)
}

// UUID reads the UUID of the file system on a device, mounted or not. ErrNoFilesystem is
// returned when there is none.
func UUID(device string) (string, error) {
	f, err := os.Open(device)
	if err != nil {
		return "", err
	}
	defer f.Close()
	const superblock, magic, id = 1024, 0x38, 0x68 // Documentation/filesystems/ext4/super.rst
	var b [1024]byte
	if _, err := f.ReadAt(b[:], superblock); err != nil {
		return "", fmt.Errorf("read %s: %w", device, err)
	}
	if b[magic] != 0x53 || b[magic+1] != 0xef {
		return "", fmt.Errorf("%s: %w", device, ErrNoFilesystem)
	}
	return uuid.UUID(b[id : id+16]).String(), nil
}

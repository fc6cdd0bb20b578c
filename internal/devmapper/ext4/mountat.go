package ext4

import "golang.org/x/sys/unix"

// MountAt mounts the file system on a block device at a directory. It honours neither
// set-uid bits nor device nodes. Read-only, a journal that was not closed is replayed all
// the same: what is in it belongs to the files. Errors: errno.
func MountAt(device, dir string, writable bool) error {
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
	if !writable {
		flags |= unix.MS_RDONLY
	}
	return unix.Mount(device, dir, filesystem, flags, "noinit_itable") // see configure
}

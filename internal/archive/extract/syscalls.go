package extract

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/archive/fstree"
)

// beneath is how directories are opened: no part of the path may be a symbolic link, lead
// upwards or cross into another file system. Source: openat2(2).
const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// retry repeats a call after EINTR and EAGAIN. openat2 returns EAGAIN when something was
// renamed elsewhere during its walk. Nobody renames in our trees, so the number of tries
// is bounded.
func retry(call func() error) error {
	_, err := retryInt(func() (int, error) { return 0, call() })
	return err
}

// retryInt is retry for a call that returns a descriptor or a number of bytes.
func retryInt(call func() (int, error)) (int, error) {
	const limit = 64
	for tries := 0; ; tries++ {
		n, err := call()
		if tries == limit || !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return n, err
		}
	}
}

// openDir opens a directory below another. With an empty path it opens that directory
// again.
func openDir(at int, path string) (fd int, err error) {
	if path == "" {
		path = "."
	}
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: beneath}
	return retryInt(func() (int, error) { return unix.Openat2(at, path, &how) })
}

// openFile opens a regular file by a single name. If it has become a pipe, O_NONBLOCK
// keeps the open from waiting for a writer.
func openFile(at int, name string) (fd int, err error) {
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	return retryInt(func() (int, error) { return unix.Openat(at, name, flags, 0) })
}

// createFile makes a file that must not exist, by a single name in an open directory.
func createFile(at int, name string) (fd int, err error) {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	return retryInt(func() (int, error) { return unix.Openat(at, name, flags, 0o600) })
}

func mkdirAt(at int, name string) error {
	return retry(func() error { return unix.Mkdirat(at, name, 0o700) })
}

func linkAt(from int, old string, to int, name string) error {
	return retry(func() error { return unix.Linkat(from, old, to, name, 0) })
}

// makeSymlink makes a symbolic link with its owner and times. All three calls are about
// the link itself, never about its target.
func makeSymlink(at int, n *fstree.Node) error {
	if err := retry(func() error { return unix.Symlinkat(n.Link, at, n.Name) }); err != nil {
		return err
	}
	if n.UID != 0 || n.GID != 0 {
		if err := unix.Fchownat(at, n.Name, int(n.UID), int(n.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	return setTimes(at, n.Name, n)
}

// setAttributes sets owner, mode and extended attributes, in this order. New files belong
// to root; for those of root the first call is saved.
func setAttributes(fd int, n *fstree.Node, xattrs []fstree.Xattr) error {
	if n.UID != 0 || n.GID != 0 {
		if err := unix.Fchown(fd, int(n.UID), int(n.GID)); err != nil {
			return fmt.Errorf("owner: %w", err)
		}
	}
	if err := unix.Fchmod(fd, uint32(n.Mode)); err != nil {
		return fmt.Errorf("mode: %w", err)
	}
	for _, x := range xattrs {
		if err := unix.Fsetxattr(fd, x.Name, x.Value, 0); err != nil {
			return fmt.Errorf("attribute %q: %w", x.Name, err)
		}
	}
	return nil
}

// setTimes sets the times of access and modification.
func setTimes(at int, name string, n *fstree.Node) error {
	ts := unix.Timespec{Sec: n.Sec, Nsec: int64(n.Nsec)}
	return unix.UtimesNanoAt(at, name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

func writeAll(fd int, data []byte) error { return (&dataFile{fd: fd}).write(data) }

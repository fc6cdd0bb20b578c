package archive

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// beneath is how directories are opened: nothing of the path may be a symbolic link, lead
// upwards or into another file system. Source: openat2(2).
const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// retry repeats a call that a signal interrupted. EAGAIN is openat2's answer to a rename
// elsewhere while it walked; nobody renames in our trees, so it is bounded.
func retry(call func() error) error {
	const most = 64
	for n := 0; ; n++ {
		err := call()
		if n == most || !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return err
		}
	}
}

// openDir opens a directory below another. An empty path is the directory itself.
func openDir(at int, path string) (fd int, err error) {
	if path == "" {
		path = "."
	}
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: beneath}
	err = retry(func() error { fd, err = unix.Openat2(at, path, &how); return err })
	return fd, err
}

func mkdirAt(at int, name string) error {
	return retry(func() error { return unix.Mkdirat(at, name, 0o700) })
}

func linkAt(from int, old string, to int, name string) error {
	return retry(func() error { return unix.Linkat(from, old, to, name, 0) })
}

// createFile makes a file that must not exist yet, by a single name in an open directory.
func createFile(at int, name string) (fd int, err error) {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	err = retry(func() error { fd, err = unix.Openat(at, name, flags, 0o600); return err })
	return fd, err
}

// makeSymlink makes a link with its owner and times; the link itself, never what it
// points to.
func makeSymlink(at int, n *node) error {
	if err := retry(func() error { return unix.Symlinkat(n.link, at, n.name) }); err != nil {
		return err
	}
	if n.uid != 0 || n.gid != 0 {
		if err := unix.Fchownat(at, n.name, int(n.uid), int(n.gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	return setTimes(at, n.name, n)
}

// setAttributes sets owner, mode and extended attributes, in this order. What root makes
// belongs to root: that call is saved.
func setAttributes(fd int, n *node, xattrs []Xattr) error {
	if n.uid != 0 || n.gid != 0 {
		if err := unix.Fchown(fd, int(n.uid), int(n.gid)); err != nil {
			return fmt.Errorf("owner: %w", err)
		}
	}
	if err := unix.Fchmod(fd, uint32(n.mode)); err != nil {
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
func setTimes(at int, name string, n *node) error {
	ts := unix.Timespec{Sec: n.sec, Nsec: int64(n.nsec)}
	return unix.UtimesNanoAt(at, name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

// copyFile copies a file's data from the archive and returns its SHA-256, taken of the
// very bytes that are written. Of files larger than a buffer, one buffer is hashed and
// written while nothing waits for it but the next.
func copyFile(ctx context.Context, b *buffers, src io.ReaderAt, n *node, fd int, advance func(int)) (sum [32]byte,
	err error,
) {
	if ctx.Err() != nil {
		return sum, context.Cause(ctx)
	}
	if n.size == 0 {
		return sha256.Sum256(nil), nil
	}
	if n.size <= bufferSize {
		data := b[0][:n.size]
		if err := readFull(src, data, n.data); err != nil {
			return sum, err
		}
		sum = sha256.Sum256(data)
		err := writeAll(fd, data)
		advance(len(data))
		return sum, err
	}
	hash := newHasher()
	defer hash.wait()
	for done, k := int64(0), 0; done < n.size; k ^= 1 {
		if ctx.Err() != nil {
			return sum, context.Cause(ctx)
		}
		data := b[k][:min(n.size-done, bufferSize)]
		if err := readFull(src, data, n.data+done); err != nil {
			return sum, err
		}
		if err := hash.add(data, true); err != nil {
			return sum, err
		}
		if err := writeAll(fd, data); err != nil {
			return sum, err
		}
		done += int64(len(data))
		advance(len(data))
	}
	return hash.sum()
}

// readFull reads all of data. A source that ends early is io.ErrUnexpectedEOF.
func readFull(src io.ReaderAt, data []byte, off int64) error {
	n, err := src.ReadAt(data, off)
	switch {
	case n == len(data):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	}
	return err
}

func writeAll(fd int, data []byte) error {
	for len(data) > 0 {
		var n int
		err := retry(func() (err error) { n, err = unix.Write(fd, data); return err })
		if err != nil {
			return err
		}
		if n == 0 {
			return io.ErrShortWrite
		}
		data = data[n:]
	}
	return nil
}

// config writes the image's configuration beside the tree.
func (w *writer) config(ctx context.Context, plan *Plan, root *os.File) (*Record, error) {
	if plan.Config == nil {
		return nil, nil //nolint:nilnil // there is none, and that is no error
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	n := node{name: configName, mode: 0o644, size: int64(len(plan.Config))}
	fd, err := createFile(int(root.Fd()), n.name)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", configName, err)
	}
	err = writeAll(fd, plan.Config)
	err = errors.Join(err, setAttributes(fd, &n, nil), setTimes(int(root.Fd()), n.name, &n), unix.Close(fd))
	sum := sha256.Sum256(plan.Config)
	return &Record{Name: n.name, Type: TypeFile, Mode: n.mode, Size: n.size, SHA256: &sum}, err
}

package devmapper

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/failpoint"
)

// blockDevice is a block device, open for reading at least: a given one, or the loop
// device of a file. The loop devices clear themselves when their last user closes them
// (LO_FLAGS_AUTOCLEAR). The pool holds them while it is active, and a crash before there
// is a pool leaves none.
type blockDevice struct {
	f      *os.File
	path   string // of the block device
	dev    uint64 // its number
	size   int64  // bytes
	loop   bool
	source string // path in the configuration
}

func (b blockDevice) close() {
	if b.f != nil {
		b.f.Close()
	}
}

// attachPair attaches both devices of a pool. The caller keeps them open until the pool
// holds them.
func attachPair(cfg Config) (metadata, data blockDevice, err error) {
	if metadata, err = attach(cfg.Metadata); err != nil {
		return metadata, data, fmt.Errorf("metadata device: %w", err)
	}
	if data, err = attach(cfg.Data); err != nil {
		metadata.close()
		return blockDevice{}, data, fmt.Errorf("data device: %w", err)
	}
	failpoint.Here("after", "attach")
	if metadata.dev == data.dev {
		metadata.close()
		data.close()
		return blockDevice{}, blockDevice{}, fmt.Errorf("data and metadata are the same device %s: %w",
			data.path, fs.ErrInvalid)
	}
	return metadata, data, nil
}

// attach opens the block device at path, or the loop device of the file at path. If the
// file has none, it makes one.
func attach(path string) (blockDevice, error) {
	node, err := waitForPath(path)
	if err != nil {
		return blockDevice{}, err
	}
	info, err := os.Stat(node)
	if err != nil {
		return blockDevice{}, err
	}
	var f *os.File
	loop := info.Mode().IsRegular()
	switch {
	case loop:
		f, err = attachLoop(path)
	case isBlock(info.Mode()):
		f, err = os.OpenFile(node, os.O_RDONLY|unix.O_CLOEXEC, 0)
	default:
		err = fmt.Errorf("%s is neither a block device nor a file: %w", path, fs.ErrInvalid)
	}
	if err != nil {
		return blockDevice{}, err
	}
	b, err := describe(f)
	if err != nil {
		f.Close()
		return blockDevice{}, err
	}
	b.loop, b.source = loop, path
	// An old loop may have outlived its pool, because somebody had it open, while its
	// file grew.
	if loop && b.size < info.Size()/sectorSize*sectorSize {
		if err := b.refreshSize(); err != nil {
			f.Close()
			return blockDevice{}, err
		}
	}
	return b, nil
}

// waitForPath is workPath for a configured path. A name below /dev may be missing for a
// moment only, so it is waited for.
func waitForPath(path string) (string, error) {
	node, err := workPath(path)
	if err != nil || node != path || !strings.HasPrefix(path, "/dev/") {
		return node, err
	}
	notThere := func(err error) bool { return errors.Is(err, fs.ErrNotExist) }
	return path, retryWhile(busyTimeout, notThere, func() error {
		_, err := os.Stat(path)
		return err
	})
}

func describe(f *os.File) (blockDevice, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return blockDevice{}, fmt.Errorf("stat %s: %w", f.Name(), err)
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return blockDevice{}, err
	}
	return blockDevice{f: f, path: f.Name(), dev: st.Rdev, size: size}, nil
}

// openRaw opens a device past the page cache, or a file the usual way.
func openRaw(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	switch {
	case isBlock(info.Mode()):
		return openDirect(path, os.O_RDONLY)
	case info.Mode().IsRegular():
		return os.Open(path)
	}
	return nil, fmt.Errorf("%s is neither a block device nor a file: %w", path, fs.ErrInvalid)
}

func isBlock(m fs.FileMode) bool { return m&fs.ModeDevice != 0 && m&fs.ModeCharDevice == 0 }

// openDirect opens a block device past the page cache. The cache misses the kernel's own
// writes to the metadata (dm-bufio).
func openDirect(path string, flags int) (*os.File, error) {
	return os.OpenFile(path, flags|unix.O_DIRECT|unix.O_CLOEXEC, 0)
}

// reopen opens the device again, past the page cache. ErrForeign is returned when its
// path leads to another device now.
func (b blockDevice) reopen(flags int) (*os.File, error) {
	f, err := openDirect(b.path, flags)
	if err != nil {
		return nil, err
	}
	now, err := describe(f)
	if err == nil && now.dev != b.dev {
		err = fmt.Errorf("%w: %s is another device now", ErrForeign, b.path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// reserve sets aside the missing space of the file behind a loop device: a file given by
// the operator, or copied with its holes. A block device has its space.
func (b blockDevice) reserve() error {
	if !b.loop {
		return nil
	}
	f, err := os.OpenFile(b.source, os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return errors.Join(reserveFile(f, b.size), f.Sync())
}

// extend makes a file, by enlarge, and its loop device at least newBytes large.
func (b *blockDevice) extend(newBytes int64, enlarge func(f *os.File, size int64) error) error {
	if !b.loop {
		if newBytes > b.size {
			return fmt.Errorf("%s has %d bytes, not %d: enlarge the device first: %w",
				b.source, b.size, newBytes, unix.EINVAL)
		}
		return nil
	}
	f, err := os.OpenFile(b.source, os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if newBytes < info.Size() {
		return fmt.Errorf("%s has %d bytes, more than %d: a pool cannot shrink: %w",
			b.source, info.Size(), newBytes, unix.EINVAL)
	}
	if err := enlarge(f, newBytes); err != nil {
		return err
	}
	failpoint.Here("after", "extend")
	if err := f.Sync(); err != nil {
		return err
	}
	defer failpoint.Here("after", "capacity")
	return b.refreshSize()
}

// refreshSize makes a loop device as large as its file is now.
func (b *blockDevice) refreshSize() error {
	if err := unix.IoctlSetInt(int(b.f.Fd()), unix.LOOP_SET_CAPACITY, 0); err != nil {
		return fmt.Errorf("capacity of %s: %w", b.path, err)
	}
	size, err := b.f.Seek(0, io.SeekEnd)
	b.size = size
	return err
}

// discardRange frees bytes of a block device (BLKDISCARD in linux/fs.h).
func discardRange(f *os.File, start, length int64) error {
	r := [2]uint64{uint64(start), uint64(length)}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKDISCARD, uintptr(unsafe.Pointer(&r)))
	runtime.KeepAlive(f)
	if errno != 0 {
		return errno
	}
	return nil
}

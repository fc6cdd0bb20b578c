package devmapper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	loopControl = "/dev/loop-control"
	loopMajor   = 7
)

func attachLoop(path string) (*os.File, error) {
	found, err := findLoops(path)
	if err != nil {
		return nil, err
	}
	if len(found) > 0 {
		for _, other := range found[1:] {
			other.Close()
		}
		return found[0], nil
	}
	backing, err := os.OpenFile(path, os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer backing.Close()
	return configureLoop(backing)
}

// configureLoop puts the file behind a free loop device. Direct I/O is optional: the
// kernel falls back if the file's own file system has none, and the pool does not rely on
// it.
func configureLoop(backing *os.File) (*os.File, error) {
	ctl, err := os.OpenFile(loopControl, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %w (modprobe loop)", ErrUnavailable, err)
	}
	defer ctl.Close()
	config := unix.LoopConfig{Fd: uint32(backing.Fd())}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO
	copy(config.Info.File_name[:len(config.Info.File_name)-1], backing.Name())
	var loop *os.File
	err = retryWhile(busyTimeout, isTaken, func() error {
		n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return fmt.Errorf("find a free loop device: %w", err)
		}
		if loop, err = openLoop(n, os.O_RDWR); err != nil {
			return err
		}
		if err := unix.IoctlLoopConfigure(int(loop.Fd()), &config); err != nil {
			loop.Close()
			return fmt.Errorf("put %s behind %s: %w", backing.Name(), loop.Name(), err)
		}
		return nil
	})
	return loop, err
}

// isTaken reports whether another process took the free loop device, or removed it
// (ENXIO).
func isTaken(err error) bool { return errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENXIO) }

// openLoop opens a loop device, and makes its node if neither devtmpfs nor udev has.
func openLoop(n, flags int) (*os.File, error) {
	path := "/dev/loop" + strconv.Itoa(n)
	f, err := os.OpenFile(path, flags|unix.O_CLOEXEC, 0)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if err := unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(loopMajor, uint32(n)))); err != nil &&
		!errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("mknod %s: %w", path, err)
	}
	return os.OpenFile(path, flags|unix.O_CLOEXEC, 0)
}

// findLoops returns, open for reading, the loop devices of the file at path, whatever
// name they were attached by. It looks into all loops of the machine. It opens none for
// writing, because udevd examines every device that was open for writing once it is
// closed.
func findLoops(path string) ([]*os.File, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	bound, err := filepath.Glob("/sys/block/loop*/loop/backing_file") // only bound ones have it
	if err != nil {
		return nil, err
	}
	var list []*os.File
	for _, b := range bound {
		n, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(filepath.Dir(filepath.Dir(b))), "loop"))
		if err != nil {
			continue
		}
		f, err := openLoop(n, os.O_RDONLY)
		if err != nil { // gone since
			continue
		}
		info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
		if err != nil || info.Device != st.Dev || info.Inode != st.Ino {
			f.Close()
			continue
		}
		if info.Offset != 0 || info.Sizelimit != 0 || info.Flags&unix.LO_FLAGS_READ_ONLY != 0 {
			f.Close()
			return nil, errors.Join(fmt.Errorf("%w: %s covers only part of %s, or is read-only: losetup --detach %s",
				ErrForeign, f.Name(), path, f.Name()), closeAll(list))
		}
		list = append(list, f)
	}
	return list, nil
}

func closeAll(list []*os.File) error {
	var errs []error
	for _, f := range list {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// detachLoops clears the loop devices of a file. A path to nothing, or to something else
// than a file, has none. If somebody else has one open, as udevd does for a moment, the
// kernel clears it when they close it; detachLoops waits for that, but does not insist.
func detachLoops(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return nil
	}
	if err != nil {
		return err
	}
	list, err := findLoops(path)
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range list {
		if err := unix.IoctlSetInt(int(f.Fd()), unix.LOOP_CLR_FD, 0); err != nil && !errors.Is(err, unix.ENXIO) {
			errs = append(errs, fmt.Errorf("clear %s: %w", f.Name(), err))
		}
		f.Close()
	}
	if len(list) == 0 || len(errs) > 0 {
		return errors.Join(errs...)
	}
	err = retryWhile(busyTimeout, isErrno(unix.EBUSY), func() error {
		left, err := findLoops(path)
		if err == nil && len(left) > 0 {
			err = unix.EBUSY
		}
		return errors.Join(err, closeAll(left))
	})
	if errors.Is(err, unix.EBUSY) {
		return nil
	}
	return err
}

package devmapper

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// reserveFile makes a file of at least so many bytes, all of them set aside on its file
// system: a disk that is full takes nothing from it. What it holds stays, and what it did
// not hold reads as zeros. The file has its old size until everything is set aside; on an
// error it is as it was. Where a file system copies on write, as Btrfs does, later writes
// may want more.
func reserveFile(f *os.File, size int64) error {
	const step = 64 << 20 // a signal undoes one step on a tmpfs
	info, err := f.Stat()
	if err != nil {
		return err
	}
	for at := int64(0); at < size; at += step {
		err := interrupted(func() error {
			return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, at, min(step, size-at))
		})
		if err != nil {
			// gives back what is behind the end
			return errors.Join(unreserved(f.Name(), size, err), f.Truncate(info.Size()))
		}
	}
	return f.Truncate(max(size, info.Size()))
}

// interrupted repeats what a signal cut off.
func interrupted(do func() error) error {
	for {
		if err := do(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// unreserved says what to do about a file that cannot have its space.
func unreserved(path string, size int64, err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%s takes %d bytes of its file system, which has not so much room: make room, or choose a smaller --metadata-size or another place: %w", path, size, err)
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("the file system of %s cannot set space aside for it (fallocate): put the metadata on ext4, XFS or a block device: %w", path, err)
	}
	return fmt.Errorf("set %d bytes aside for %s: %w", size, path, err)
}

// reserve sets aside what the file behind a loop device has no space for yet: one that
// was given, or copied with its holes. A block device has its space.
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

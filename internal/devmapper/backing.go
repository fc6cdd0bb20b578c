package devmapper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/durable"
)

// MetadataSize returns the recommended size of a pool's metadata, in bytes. The kernel's
// documentation asks for 48 bytes a data block, between 2 MiB and 16 GiB. Added to this
// are 16 KiB a thin device: a snapshot in use keeps mapping blocks of its own (16 to 25
// KiB measured). The result is above that of thin_metadata_size. The file takes all of it
// from its file system.
func MetadataSize(dataBytes, blockSize int64, thins int) int64 {
	const perBlock, perThin = 48, 16 << 10
	if blockSize <= 0 {
		return minMetadataSize
	}
	size := (dataBytes/blockSize)*perBlock + int64(thins)*perThin
	size = (size + metadataBlock - 1) / metadataBlock * metadataBlock
	return min(max(size, minMetadataSize), maxMetadataSize)
}

// CreateFiles durably makes files of these sizes, in bytes, for a pool. The data file is
// sparse. The metadata file's space is set aside, because a pool stops for all of its
// users when its metadata cannot be written. A file that a crash left empty is finished;
// one of the right size is left alone, whatever it holds; any other is fs.ErrExist.
// ENOSPC and EOPNOTSUPP are returned when the space cannot be set aside.
func CreateFiles(data, metadata string, dataSize, metadataSize int64) error {
	if dataSize < minBlockSize || metadataSize < minMetadataSize {
		return fmt.Errorf("pool files of %d and %d bytes: at least %d and %d: %w",
			dataSize, metadataSize, minBlockSize, minMetadataSize, fs.ErrInvalid)
	}
	if err := createFile(data, dataSize, (*os.File).Truncate); err != nil {
		return err
	}
	return createFile(metadata, metadataSize, reserveFile)
}

// createFile makes a file; enlarge gives it its size.
func createFile(path string, size int64, enlarge func(f *os.File, size int64) error) error {
	// Not O_TRUNC: an existing file may be a pool. O_NOFOLLOW: a link here was made by
	// somebody else.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	case info.Size() == 0, info.Size() == size:
		if err := enlarge(f, size); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%w: it has %d bytes, not %d",
			&fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}, info.Size(), size)
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(path))
}

// reserveFile makes a file of at least size bytes and sets all of them aside on its
// file system, so that a full disk takes nothing from it. Contents stay; new bytes read
// as zeros. The file keeps its old size until everything is set aside; on an error it is
// as it was. On a file system that copies on write, such as Btrfs, later writes may still
// need more.
func reserveFile(f *os.File, size int64) error {
	const step = 64 << 20 // a signal undoes one step on a tmpfs
	info, err := f.Stat()
	if err != nil {
		return err
	}
	for at := int64(0); at < size; at += step {
		err := retryInterrupted(func() error {
			return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, at, min(step, size-at))
		})
		if err != nil {
			// Truncate gives back the space behind the end.
			return errors.Join(explainReserve(f.Name(), size, err), f.Truncate(info.Size()))
		}
	}
	return f.Truncate(max(size, info.Size()))
}

// retryInterrupted repeats a call that a signal interrupted.
func retryInterrupted(do func() error) error {
	for {
		if err := do(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// explainReserve says what to do about a file without enough space.
func explainReserve(path string, size int64, err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%s takes %d bytes of its file system, which has too little space: make room, or "+
			"choose a smaller --metadata-size or another place: %w", path, size, err)
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("the file system of %s cannot set space aside for it (fallocate): put the metadata "+
			"on ext4, XFS or a block device: %w", path, err)
	}
	return fmt.Errorf("set %d bytes aside for %s: %w", size, path, err)
}

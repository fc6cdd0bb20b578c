package devmapper

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/durable"
)

// MetadataSize is how many bytes of metadata a pool should have. The kernel's
// documentation asks for 48 bytes a data block, between 2 MiB and 16 GiB. On top come 16
// KiB a thin device: what a snapshot that is written to keeps of mapping blocks of its
// own (16 to 25 KiB measured). The result is above what thin_metadata_size asks for; the
// file takes all of it from its file system.
func MetadataSize(dataBytes, blockSize int64, thins int) int64 {
	const perBlock, perThin = 48, 16 << 10
	if blockSize <= 0 {
		return minMetadataSize
	}
	size := (dataBytes/blockSize)*perBlock + int64(thins)*perThin
	size = (size + metadataBlock - 1) / metadataBlock * metadataBlock
	return min(max(size, minMetadataSize), maxMetadataSize)
}

// CreateFiles makes files for a pool, of so many bytes, durably. The data's is sparse;
// the space of the metadata's is set aside, because a pool whose metadata cannot be
// written stops for all of its users. A file that a crash left empty is finished; one of
// the right size is left alone, whatever it holds; any other is fs.ErrExist. ENOSPC and
// EOPNOTSUPP say that the metadata's space cannot be had.
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

// createFile makes a file that enlarge has given its size.
func createFile(path string, size int64, enlarge func(f *os.File, size int64) error) error {
	// Not O_TRUNC: what is there may be a pool. O_NOFOLLOW: a link in our way is not
	// ours.
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
		return fmt.Errorf("%w: it has %d bytes, wanted are %d",
			&fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}, info.Size(), size)
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(path))
}

// HasSuperblock tells whether a metadata device or file holds a pool, intact or damaged.
// A file that is not there is fs.ErrNotExist.
func HasSuperblock(path string) (bool, error) {
	block, err := firstBlock(path)
	if err != nil || block == nil {
		return false, err
	}
	return isSuperblock(block), nil
}

// firstBlock reads the first 4 KiB; it is nil when there are not so many.
func firstBlock(path string) ([]byte, error) {
	f, err := openRaw(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	block := alignedBlock()
	if _, err := f.ReadAt(block, 0); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		return nil, err
	}
	return block, nil
}

// openRaw opens a device past the page cache, and a file as any.
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

// signature is what a well-known content begins with. There are more; these are what one
// loses by a typing error.
type signature struct {
	offset int64
	magic  string
	name   string
}

var signatures = []signature{
	{0x438, "\x53\xef", "an ext2, ext3 or ext4 file system"},
	{0, "XFSB", "an XFS file system"},
	{0x10040, "_BHRfS_M", "a Btrfs file system"},
	{0x8001, "CD001", "an ISO 9660 file system"},
	{0, "hsqs", "a squashfs file system"},
	{0, "LUKS\xba\xbe", "an encrypted volume"},
	{0x218, "LVM2 001", "an LVM physical volume"},
	{0x1000, "\xfc\x4e\x2b\xa9", "a RAID member"},
	{0x200, "EFI PART", "a partition table"},
	{0x1000, "EFI PART", "a partition table"},
	{0x1fe, "\x55\xaa", "a boot sector"},
	{0xff6, "SWAPSPACE2", "swap space"},
}

// unused checks that the device holds nothing well-known, and no pool's data but those of
// own, before a pool takes it. ErrForeign says what it holds.
func unused(r io.ReaderAt, path string, own uuid.UUID) error {
	const head = 0x11000
	buf := make([]byte, head)
	n, err := r.ReadAt(buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if stamp, ok, err := readStamp(bytes.NewReader(buf[:n]), 0); err == nil && ok && stamp.owner != own {
		return fmt.Errorf("%w: %s holds the data of a thin pool of this program, %s; give another, or empty it yourself", ErrForeign, path, stamp.owner)
	}
	for _, s := range signatures {
		end := s.offset + int64(len(s.magic))
		if end <= int64(n) && bytes.Equal(buf[s.offset:end], []byte(s.magic)) {
			return fmt.Errorf("%w: %s holds %s; give another, or empty it yourself (wipefs --all, or remove the file)",
				ErrForeign, path, s.name)
		}
	}
	return nil
}

package devmapper

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/google/uuid"
)

// signature is the beginning of a well-known content. There are more; these are the ones
// an operator may destroy by a typing error.
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

// checkNoSignature returns ErrForeign if the device holds something well-known, or the
// data of another pool than own.
func checkNoSignature(r io.ReaderAt, path string, own uuid.UUID) error {
	const head = 0x11000
	buf := make([]byte, head)
	n, err := r.ReadAt(buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if stamp, ok, err := readStamp(bytes.NewReader(buf[:n]), 0); err == nil && ok && stamp.owner != own {
		return fmt.Errorf("%w: %s holds the data of a thin pool of this program, %s; give another, or empty it "+
			"yourself", ErrForeign, path, stamp.owner)
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

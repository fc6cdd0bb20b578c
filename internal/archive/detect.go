package archive

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"imagemanager.internal/internal/archive/tarball"
)

// format is a file format that is refused by name. Files of it begin with magic bytes.
type format struct {
	name       string
	compressed bool
	magic      string
	at         int // offset of the magic bytes
}

// formats are what people upload instead of a tarball. Sources: the magic database of
// file(1) and the specifications of the formats.
var formats = []format{
	{"gzip", true, "\x1f\x8b", 0},
	{"bzip2", true, "BZh", 0},
	{"xz", true, "\xfd7zXZ\x00", 0},
	{"zstd", true, "\x28\xb5\x2f\xfd", 0},
	{"lz4", true, "\x04\x22\x4d\x18", 0},
	{"lz4", true, "\x02\x21\x4c\x18", 0},
	{"lzop", true, "\x89LZO\x00\r\n\x1a\n", 0},
	{"lzip", true, "LZIP", 0},
	{"compress", true, "\x1f\x9d", 0},
	{"7z", true, "7z\xbc\xaf\x27\x1c", 0},
	{"zip", true, "PK\x03\x04", 0},
	{"zip", true, "PK\x05\x06", 0},
	{"zip", true, "PK\x07\x08", 0},
	{"lzma", true, "\x5d\x00\x00", 0}, // a guess by the usual first bytes; it has no magic
	{"squashfs", false, "hsqs", 0},
	{"sif", false, "SIF_MAGIC", 32}, // after a line that starts it as a program
	{"cpio", false, "070701", 0},
	{"cpio", false, "070702", 0},
	{"cpio", false, "070707", 0},
	{"ar", false, "!<arch>\n", 0},
	{"rpm", false, "\xed\xab\xee\xdb", 0},
	{"qcow2", false, "QFI\xfb", 0},
	{"elf", false, "\x7fELF", 0},
	{"erofs", false, "\xe2\xe1\xf5\xe0", 1024},
	{"ext4", false, "\x53\xef", 1080},
	{"iso9660", false, "CD001", 32769},
}

const (
	magicSpan  = 32774 // bytes up to the end of the last magic
	compressed = "compressed:"
)

func (f format) reason() Reason {
	if f.compressed {
		return Reason(compressed + f.name)
	}
	return Reason("format_" + f.name)
}

// formatRules returns a rule for each format.
func formatRules() []Rule {
	var rules []Rule
	seen := map[Reason]bool{}
	for _, f := range formats {
		if r := f.reason(); !seen[r] {
			seen[r] = true
			rules = append(rules, never("formats", r, "the file is "+f.name+", not a plain tar archive"))
		}
	}
	return rules
}

// sniff detects a format by its magic bytes.
func sniff(head []byte) (format, bool) {
	for _, f := range formats {
		if len(head) > f.at && bytes.HasPrefix(head[f.at:], []byte(f.magic)) {
			return f, true
		}
	}
	// A zstd stream may begin with a skippable frame: 0x50 to 0x5f, then the magic.
	if len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte("\x2a\x4d\x18")) {
		return format{name: "zstd", compressed: true}, true
	}
	return format{}, false
}

// detectFormat refuses files of other formats than tar. A first header with the correct
// checksum is accepted whatever its first bytes are, as a name may begin with any magic.
func detectFormat(src io.ReaderAt, size int64) error {
	head := make([]byte, min(size, magicSpan))
	if n, err := src.ReadAt(head, 0); n < len(head) {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	switch {
	case size == 0:
		return refuse(EmptyArchive, "the file is empty")
	case tarball.IsHeader(head):
		return nil
	}
	f, known := sniff(head)
	if !known && isZero(head) {
		return nil // an empty archive; the reader refuses it
	}
	return refuseFormat(f, known, head)
}

// isZero reports whether a file begins with a block of zeros.
func isZero(head []byte) bool {
	return len(head) >= tarball.BlockSize && bytes.Count(head[:tarball.BlockSize], []byte{0}) == tarball.BlockSize
}

// refuseCompressed refuses a file and names its compression.
func refuseCompressed(f format) *Rejection {
	r := refuse(f.reason(), "it is compressed with %s; only plain tar archives are accepted", f.name)
	r.Remedy = formatRemedy(f)
	return r
}

// refuseFormat refuses a file and names its format, if known.
func refuseFormat(f format, known bool, head []byte) *Rejection {
	switch {
	case known && f.compressed:
		return refuseCompressed(f)
	case known:
		r := refuse(f.reason(), "it is a file of format %s, not a tar archive", f.name)
		r.Remedy = formatRemedy(f)
		return r
	}
	return refuse(Format, "it is not a tar archive: it begins with %s", fmt.Sprintf("%q", head[:min(len(head), 16)]))
}

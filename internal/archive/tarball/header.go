package tarball

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// The types of entries that Next returns.
const (
	Regular   = '0'
	Hardlink  = '1'
	Symlink   = '2'
	Char      = '3'
	Block     = '4'
	Directory = '5'
	FIFO      = '6'
)

// The types of extended headers and of sparse files.
const (
	typePAX      = 'x'
	typeGlobal   = 'g'
	typeLongName = 'L'
	typeLongLink = 'K'
	typeSparse   = 'S'
)

// Header is one entry with all overrides applied.
type Header struct {
	Index      int   // from 0
	Offset     int64 // of the entry's first block, the extended header if it has one
	DataOffset int64
	Type       byte
	Mode       int64 // 0..07777, without the file type added by some writers
	UID, GID   int64 // 0..2^32-2
	Size       int64
	ModTime    Time
	Device     [2]int64 // major and minor number of a device
	Name       []byte   // as in the archive
	Linkname   []byte
	Xattrs     []Xattr // in the archive's order
}

// Xattr is an extended attribute, an access control list or file flags. Its name has the
// prefix of Linux ("user.", "system.", ...).
type Xattr struct {
	Name, Value []byte
}

// Time is a number of seconds since 1970, and 0..999999999 nanoseconds after that.
type Time struct {
	Sec  int64
	Nsec int32
}

// uidLimit is -1 as a user ID. For the kernel it means: leave the owner as it is.
const uidLimit = 1<<32 - 1

const permissions = 0o7777

// fileType is the type in st_mode (inode(7)) for each type of entry.
var fileType = map[byte]int64{
	Regular: 0o100000, Hardlink: 0o100000, Symlink: 0o120000, Char: 0o020000, Block: 0o060000, Directory: 0o040000,
	FIFO: 0o010000,
}

// check refuses a header if other readers understand it differently. An old directory is
// one by its header's name alone.
func (h *Header) check(oldDirectory bool) *Error {
	var err *Error
	// 7-Zip, Maven and old versions of Docker write the whole st_mode. This is harmless
	// if the type in it is the entry's own.
	if h.Mode&^permissions == fileType[h.Type] {
		h.Mode &= permissions
	}
	switch {
	case h.Mode&^permissions != 0:
		err = defect(ModeOverflow, "mode %#o", h.Mode)
	case h.UID < 0 || h.GID < 0 || h.UID >= uidLimit || h.GID >= uidLimit:
		err = badOwner("%d:%d", h.UID, h.GID)
	case h.Type == Hardlink && h.Size > 0:
		err = defect(HardlinkWithData, "a hard link with %d bytes of data", h.Size)
	case h.Type != Regular && h.Size > 0:
		err = defect(AmbiguousHeader, "%d bytes of data on an entry that can have none", h.Size)
	case h.Type != Directory && endsInSlash(h.Name):
		err = defect(AmbiguousHeader, "a name with a trailing slash on an entry that is not a directory")
	case oldDirectory && !endsInSlash(h.Name):
		err = defect(AmbiguousHeader, "a directory by the name in its header, a file by that in the extended header")
	}
	if err != nil {
		err.Name = string(h.Name)
	}
	return err
}

// fields are the fields of one header block.
type fields struct {
	typ                  byte
	name, prefix, link   []byte
	mode, uid, gid, size int64
	mtime                Time
	device               [2]int64
	oldDirectory         bool // the v7 format has no type for one: the name ends in a slash
}

// extends reports whether this is an extended header.
func (f *fields) extends() bool {
	return f.typ == typePAX || f.typ == typeGlobal || f.typ == typeLongName || f.typ == typeLongLink
}

var (
	magicPOSIX  = []byte("ustar\x00")
	magicGNU    = []byte("ustar  \x00")
	trailerStar = []byte("tar\x00")
)

// IsHeader reports whether a block of BlockSize bytes has a correct checksum. A tar
// archive begins with such a block, whatever its first name is.
func IsHeader(b []byte) bool {
	if len(b) < BlockSize {
		return false
	}
	sum, err := octal(b[148:156])
	return err == nil && sum == checksum(b)
}

// checksum returns the sum of the block's bytes, with blanks for the checksum's own
// field.
func checksum(b []byte) int64 {
	const even = 0x00ff00ff00ff00ff // every other byte
	var lanes uint64                // four sums of 16 bits; 128 bytes each cannot overflow them
	for i := 0; i < BlockSize; i += 8 {
		v := binary.LittleEndian.Uint64(b[i:])
		lanes += v&even + v>>8&even
	}
	sum := int64(8 * ' ')
	for ; lanes > 0; lanes >>= 16 {
		sum += int64(lanes & 0xffff)
	}
	for _, c := range b[148:156] {
		sum -= int64(c)
	}
	return sum
}

// decode splits a block into its fields.
func (f *fields) decode(b []byte) *Error {
	if !IsHeader(b) {
		return defect(ParseError, "wrong header checksum: %q is declared, %o is the sum", b[148:156], checksum(b))
	}
	*f = fields{name: cstring(b[:100]), link: cstring(b[157:257]), typ: b[156]}
	f.oldType()
	if err := f.knownType(); err != nil {
		return err
	}
	if err := f.numbers(b); err != nil {
		return err.named(f.name)
	}
	if f.typ == Directory && !f.oldDirectory {
		f.size = 0 // by POSIX it is the space to reserve for names; no data follow
	}
	if err := f.dialect(b); err != nil {
		return err.named(f.name)
	}
	return nil
}

// oldType translates the only type for files and directories in the v7 format.
func (f *fields) oldType() {
	switch {
	case f.typ != 0:
	case endsInSlash(f.name):
		f.typ, f.oldDirectory = Directory, true
	default:
		f.typ = Regular
	}
}

func endsInSlash(name []byte) bool { return bytes.HasSuffix(name, []byte("/")) }

func (f *fields) knownType() *Error {
	switch {
	case f.typ >= Regular && f.typ <= FIFO || f.extends():
		return nil
	case f.typ == typeSparse:
		return defect(Sparse, "a sparse file; store it without holes").named(f.name)
	}
	what := fmt.Sprintf("an entry of type %q", string(rune(f.typ)))
	if origin := gnuTypes[f.typ]; origin != "" {
		what += ", " + origin
	}
	return defect(UnknownType, "%s", what).named(f.name)
}

// gnuTypes are types of entries that only GNU tar understands. Source: GNU tar, tar.h.
var gnuTypes = map[byte]string{
	'D': "a list of names, as tar writes it with its option -g (--listed-incremental)",
	'M': "the rest of a file, as tar writes it with its option -M (--multi-volume)",
	'N': "long names, as old versions of tar wrote them",
	'V': "a label, as tar writes it with its option -V (--label)",
}

func (f *fields) numbers(b []byte) (err *Error) {
	for _, n := range []struct {
		what     string
		raw      []byte
		to       *int64
		negative Code // of the defect if the number is negative; empty if it may be
	}{
		{"mode", b[100:108], &f.mode, ParseError},
		{"owner", b[108:116], &f.uid, UIDRange},
		{"group", b[116:124], &f.gid, UIDRange},
		{"size", b[124:136], &f.size, ParseError},
		{"time", b[136:148], &f.mtime.Sec, ""},
	} {
		switch *n.to, err = number(n.raw); {
		case n.negative == UIDRange && signed(n.raw):
			return defect(UIDRange, "negative %s: %q", n.what, cstring(n.raw))
		case err != nil:
			return defect(err.Code, "%s: %s", n.what, err.Detail)
		case *n.to < 0 && n.negative != "":
			return defect(n.negative, "negative %s: %d", n.what, *n.to)
		}
	}
	return nil
}

// dialect reads the fields after the magic, which depend on the format.
func (f *fields) dialect(b []byte) *Error {
	magic := b[257:265]
	posix, gnu := bytes.HasPrefix(magic, magicPOSIX), bytes.Equal(magic, magicGNU)
	switch {
	case posix:
		f.prefix = cstring(b[345:500])
		if bytes.Equal(b[508:512], trailerStar) {
			if err := f.star(b); err != nil {
				return err
			}
		}
	case !gnu && bytes.HasPrefix(magic, []byte("ustar")):
		return defect(AmbiguousHeader, "unknown dialect %q", magic)
	case b[345] != 0:
		// GNU has a time there, and v7 nothing. CPython takes it for a part of the name.
		return defect(AmbiguousHeader, "%.12q in place of a prefix, in a dialect that has none", cstring(b[345:500]))
	}
	return f.devices(b, posix || gnu)
}

// star checks what star's dialect has behind byte 131 of the prefix: two times. They
// are not kept, but to archive/tar the header is malformed where they are no numbers.
func (f *fields) star(b []byte) *Error {
	if len(f.prefix) > 131 {
		return defect(AmbiguousHeader, "a name that runs into star's fields")
	}
	for _, raw := range [][]byte{b[476:488], b[488:500]} {
		if _, err := number(raw); err != nil {
			return defect(ParseError, "time of star: %s", err.Detail)
		}
	}
	return nil
}

// devices reads the device numbers, if the dialect has them. If not, they are numbers all
// the same: CPython ends its listing at a header where they are none.
func (f *fields) devices(b []byte, known bool) *Error {
	for i, raw := range [][]byte{b[329:337], b[337:345]} {
		n, err := number(raw)
		if err != nil {
			return defect(ParseError, "device number: %s", err.Detail)
		}
		if known {
			f.device[i] = n
		}
	}
	return nil
}

// cstring returns the bytes before the first NUL.
func cstring(b []byte) []byte {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return b
}

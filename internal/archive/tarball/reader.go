// Package tarball reads the headers of a tar archive and nothing else.
//
// It accepts only what GNU tar, libarchive, CPython and Go's archive/tar all understand
// in the same way. If one of them would see other entries, the archive is refused, so
// nothing can be shown to one reader and hidden from another. Examples are two extended
// headers for one entry, a PAX size that differs from the header's, data after the end
// marker, and a size on a symbolic link.
//
// Times are the exception, as readers disagree about harmless archives. A time in a
// global header counts, as in POSIX, GNU tar and CPython. A time without a value does
// not, as in GNU tar and Go.
//
// The package reads the old (v7), POSIX (ustar, PAX) and GNU formats. It refuses sparse
// files by name in all their spellings. Sources: POSIX.1-2017 pax, "ustar Interchange
// Format" and "pax Interchange Format"; the GNU tar manual, "Basic Tar Format".
//
// It has no rules on names and no policy. Its only limits are on the size of extended
// headers.
package tarball

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
)

// BlockSize is the unit of a tar archive, in bytes.
const BlockSize = 512

// Reader reads the headers of an archive in order. It is for one goroutine.
type Reader struct {
	win    window
	size   int64
	record int64 // limit of an entry's extended headers, in bytes

	off   int64 // where the next header is expected
	index int
	ext   extension
	block fields
	hdr   Header
	join  []byte // prefix + "/" + name
}

// NewReader returns a reader of the archive in the first size bytes of src. The extended
// headers of one entry, or a global header, may have at most record bytes. The reader
// keeps those of one entry, so it takes a small multiple of record and no more, however
// many there are in the archive.
func NewReader(src io.ReaderAt, size, record int64) *Reader {
	return &Reader{win: window{src: src}, size: size, record: record}
}

// Next returns the next entry. The entry is valid until the next call. After a correct
// end of the archive (at least two blocks of zeros, and only zeros after them) Next
// returns io.EOF.
//
// A defect of the archive is an *Error. Other errors are the cause of ctx and those of
// the source. If the source has fewer bytes than its size, it is io.ErrUnexpectedEOF.
func (r *Reader) Next(ctx context.Context) (*Header, error) {
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		block, err := r.header()
		if err != nil {
			return nil, err
		}
		if isZero(block) {
			return nil, r.end(ctx)
		}
		f := &r.block
		if err := f.decode(block); err != nil {
			return nil, r.fail(err)
		}
		if !f.extends() {
			return r.entry(f)
		}
		if err := r.extend(f); err != nil {
			return nil, err
		}
	}
}

// header returns the block at the current offset.
func (r *Reader) header() ([]byte, error) {
	switch left := r.size - r.off; {
	case left <= 0 && r.ext.pending():
		return nil, r.fail(defect(ParseError, "the archive ends after an extended header; it may be truncated"))
	case left <= 0:
		return nil, r.unterminated("the archive ends without its end marker; it may be truncated")
	case left < BlockSize:
		return nil, r.fail(defect(ParseError, "truncated header: %d bytes there, of %d", left, BlockSize))
	}
	return r.win.read(r.off, BlockSize, r.size)
}

// extend reads an extended header: PAX records for the next entry or for all entries, or
// a long name of GNU tar.
func (r *Reader) extend(f *fields) error {
	switch {
	case f.size > r.record-r.ext.text:
		return r.fail(defect(PAXLimit, "extended headers of %d bytes for one entry, over the limit of %d KiB",
			r.ext.text+f.size, r.record>>10))
	case padded(f.size) > r.size-r.off-BlockSize:
		return r.fail(defect(ParseError, "truncated extended header: %d bytes declared, %d there", padded(f.size),
			r.size-r.off-BlockSize))
	}
	data, err := r.win.read(r.off+BlockSize, int(padded(f.size)), r.size)
	if err != nil {
		return err
	}
	if !r.ext.pending() {
		r.ext.offset = r.off
	}
	r.ext.text += f.size
	if err := r.ext.add(f.typ, data[:f.size], data[f.size:]); err != nil {
		return r.fail(err)
	}
	r.off += BlockSize + padded(f.size)
	return nil
}

// entry combines a header with its extended headers, which override its fields.
func (r *Reader) entry(f *fields) (*Header, error) {
	h := &r.hdr
	*h = Header{
		Index: r.index, Offset: r.off, DataOffset: r.off + BlockSize, Type: f.typ, Mode: f.mode, UID: f.uid, GID: f.gid,
		Size:    f.size,
		ModTime: f.mtime, Device: f.device, Name: f.name, Linkname: f.link, Xattrs: h.Xattrs[:0],
	}
	if len(f.prefix) > 0 {
		r.join = append(append(append(r.join[:0], f.prefix...), '/'), f.name...)
		h.Name = r.join
	}
	if r.ext.pending() {
		h.Offset = r.ext.offset
	}
	if err := r.ext.apply(h); err != nil {
		return nil, r.fail(err)
	}
	if err := h.check(f.oldDirectory); err != nil {
		return nil, r.fail(err)
	}
	if h.Size > r.size-h.DataOffset {
		return nil, r.fail(defect(ParseError, "truncated: %d bytes of data declared, %d there", h.Size,
			r.size-h.DataOffset).named(h.Name))
	}
	r.off = h.DataOffset + padded(h.Size)
	r.index++
	r.ext.reset()
	return h, nil
}

// end checks the archive after the first block of zeros.
func (r *Reader) end(ctx context.Context) error {
	if r.ext.pending() {
		return r.fail(defect(AmbiguousHeader, "the end marker follows an extended header"))
	}
	for off := r.off + BlockSize; off < r.size; {
		if ctx.Err() != nil { // there may be gigabytes of zeros
			return context.Cause(ctx)
		}
		n := min(r.size-off, windowSize)
		data, err := r.win.read(off, int(n), r.size)
		if err != nil {
			return err
		}
		if !isZero(data) {
			return r.fail(r.behind(off, data))
		}
		off += n
	}
	if r.size-r.off < 2*BlockSize {
		return r.unterminated("one block of zeros at the end instead of two; it may be truncated")
	}
	return io.EOF
}

// behind returns the defect for data after the first block of zeros.
func (r *Reader) behind(off int64, data []byte) *Error {
	for i := range data {
		if data[i] != 0 {
			off += int64(i)
			break
		}
	}
	code := TrailingGarbage
	if off < r.off+2*BlockSize {
		code = NoEOFMarker
	}
	zeros := r.off
	r.off = off
	return defect(code, "data after the zeros that begin at byte %d", zeros)
}

// unterminated returns the defect that the end marker is missing, and nothing else.
func (r *Reader) unterminated(detail string) error {
	e := defect(NoEOFMarker, "%s", detail)
	e.Unterminated = true
	return r.fail(e)
}

// fail adds the entry and its offset to a defect.
func (r *Reader) fail(err error) error {
	var e *Error
	if errors.As(err, &e) {
		e.Index, e.Offset = r.index, r.off
		if e.Name == "" && r.ext.path != nil {
			e.Name = string(r.ext.path)
		}
	}
	return err
}

// Error is a defect of the archive's framing.
type Error struct {
	Code   Code
	Name   string // of the entry, if it is known
	Index  int    // of the entry, from 0
	Offset int64  // of the header, in bytes
	Detail string

	// Unterminated says of NoEOFMarker that only zeros come after the last entry, if
	// anything. All readers then see the same entries.
	Unterminated bool
}

func (e *Error) Error() string {
	return fmt.Sprintf("tar header at byte %d: %s: %s", e.Offset, e.Code, e.Detail)
}

// Code names a kind of defect.
type Code string

// The kinds of defects.
const (
	ParseError       Code = "parse_error"        // not a well-formed header
	AmbiguousHeader  Code = "ambiguous_header"   // readers would disagree about its meaning
	PAXGlobalPath    Code = "pax_global_path"    // a global header changes more than times
	PAXLimit         Code = "pax_limit"          // too much text in extended headers
	NoEOFMarker      Code = "no_eof_marker"      // fewer than two blocks of zeros at the end
	TrailingGarbage  Code = "trailing_garbage"   // something other than zeros after the end
	UnknownType      Code = "unknown_type"       // an unknown type
	Sparse           Code = "sparse"             // a sparse file, in any spelling
	HardlinkWithData Code = "hardlink_with_data" // a hard link with a size
	ModeOverflow     Code = "mode_overflow"      // mode bits above 07777
	UIDRange         Code = "uid_range"          // an owner outside of 0..2^32-2
)

func defect(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// named adds the entry's name.
func (e *Error) named(name []byte) *Error {
	e.Name = string(name)
	return e
}

func padded(n int64) int64 { return (n + BlockSize - 1) &^ (BlockSize - 1) }

var zeros [windowSize]byte

// isZero reports whether all bytes are zero; an extended header may have more of them
// than a window.
func isZero(b []byte) bool {
	for ; len(b) > len(zeros); b = b[len(zeros):] {
		if !bytes.Equal(b[:len(zeros)], zeros[:]) {
			return false
		}
	}
	return bytes.Equal(b, zeros[:len(b)])
}

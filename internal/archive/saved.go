package archive

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
)

// ErrSaved says that bytes are not a manifest that WriteTo wrote.
var ErrSaved = errors.New("not a saved manifest")

// WriteTo writes the manifest in the form whose SHA-256 is its Digest, so that a saved
// manifest proves itself.
func (m *Manifest) WriteTo(w io.Writer) (int64, error) {
	out := bufio.NewWriter(w)
	var total int64
	var b []byte
	for _, r := range m.Records {
		b = r.canonical(b[:0])
		n, err := out.Write(b)
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
	return total, out.Flush()
}

// ReadSaved reads what WriteTo wrote. Whoever reads it from a disk compares its Digest
// with the one he knows. The error is ErrSaved, or the reader's.
func ReadSaved(r io.Reader) (*Manifest, error) {
	s := &saved{r: bufio.NewReader(r), byPath: map[string]*Record{}}
	m := &Manifest{}
	for {
		if _, err := s.r.Peek(1); errors.Is(err, io.EOF) {
			return m, nil
		}
		record := s.record()
		if s.err != nil {
			return nil, fmt.Errorf("record %d: %w", len(m.Records), s.err)
		}
		m.Records = append(m.Records, record)
	}
}

// saved reads the fields of canonical, until the first error.
type saved struct {
	r      *bufio.Reader
	byPath map[string]*Record
	err    error
}

func (s *saved) record() *Record {
	name := s.text()
	r := &Record{Name: path.Base(name), Parent: s.byPath[path.Dir(name)], Type: s.bytes(1)[0]}
	r.Mode, r.UID, r.GID = uint16(s.number(0o7777)), uint32(s.number(1<<32-1)), uint32(s.number(1<<32-1))
	r.Size = int64(s.number(1<<63 - 1))
	if sec, err := binary.ReadVarint(s.r); err != nil {
		s.fail(err)
	} else {
		r.Sec = sec
	}
	r.Nsec = int32(s.number(999_999_999))
	r.Target = s.text()
	if first := s.text(); first != "" && first != name {
		if r.First = s.byPath[first]; r.First == nil {
			s.fail(ErrSaved)
		}
	} else if first == name {
		r.First = r
	}
	if r.Type == TypeFile {
		r.SHA256 = (*[32]byte)(s.bytes(32))
	}
	for range s.number(maxSavedXattrs) {
		r.Xattrs = append(r.Xattrs, Xattr{Name: s.text(), Value: []byte(s.text())})
	}
	s.byPath[name] = r
	if r.Path() != name {
		s.fail(ErrSaved)
	}
	return r
}

const (
	maxSavedText   = 64 << 10 // an attribute's value; paths are shorter
	maxSavedXattrs = 4096
)

func (s *saved) fail(err error) {
	if s.err == nil {
		s.err = fmt.Errorf("%w: %w", ErrSaved, err)
	}
}

func (s *saved) number(most uint64) uint64 {
	n, err := binary.ReadUvarint(s.r)
	if err != nil {
		s.fail(err)
	}
	if n > most {
		s.fail(ErrSaved)
		return 0
	}
	return n
}

func (s *saved) bytes(n uint64) []byte {
	b := make([]byte, n)
	if _, err := io.ReadFull(s.r, b); err != nil {
		s.fail(err)
	}
	return b
}

func (s *saved) text() string { return string(s.bytes(s.number(maxSavedText))) }

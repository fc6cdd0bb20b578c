package fstree

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
)

// ErrInventory is returned when bytes are not an inventory in the form of WriteTo.
var ErrInventory = errors.New("not a saved manifest")

const (
	maxSavedText   = 64 << 10 // bytes of an attribute's value; paths are shorter
	maxSavedXattrs = 4096
)

// WriteTo writes the inventory in its canonical form. The SHA-256 of what it writes is
// the Digest, so a saved inventory proves itself.
func (v *Inventory) WriteTo(w io.Writer) (int64, error) {
	out := bufio.NewWriter(w)
	var total int64
	var b []byte
	for _, r := range v.Records {
		b = r.appendCanonical(b[:0])
		n, err := out.Write(b)
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
	return total, out.Flush()
}

// appendCanonical appends all fields, each text after its length.
func (r *Record) appendCanonical(b []byte) []byte {
	text := func(s string) { b = append(binary.AppendUvarint(b, uint64(len(s))), s...) }
	text(r.Path())
	b = append(b, r.Type)
	b = binary.AppendUvarint(b, uint64(r.Mode))
	b = binary.AppendUvarint(b, uint64(r.UID))
	b = binary.AppendUvarint(b, uint64(r.GID))
	b = binary.AppendUvarint(b, uint64(r.Size))
	b = binary.AppendVarint(b, r.Sec)
	b = binary.AppendUvarint(b, uint64(r.Nsec))
	text(r.Target)
	first := ""
	if r.First != nil {
		first = r.First.Path()
	}
	text(first)
	if r.SHA256 != nil {
		b = append(b, r.SHA256[:]...)
	}
	b = binary.AppendUvarint(b, uint64(len(r.Xattrs)))
	for _, x := range r.Xattrs {
		text(x.Name)
		text(string(x.Value))
	}
	return b
}

// ReadInventory reads what WriteTo wrote. It does not notice every damage: compare the
// Digest with the expected one. The error is ErrInventory.
func ReadInventory(r io.Reader) (*Inventory, error) {
	d := &decoder{r: bufio.NewReader(r), byPath: map[string]*Record{}}
	v := &Inventory{}
	for {
		if _, err := d.r.Peek(1); errors.Is(err, io.EOF) {
			return v, nil
		}
		record := d.record()
		if d.err != nil {
			return nil, fmt.Errorf("record %d: %w", len(v.Records), d.err)
		}
		v.Records = append(v.Records, record)
	}
}

// decoder reads the fields that appendCanonical wrote. It keeps the first error and goes
// on with zero values.
type decoder struct {
	r      *bufio.Reader
	byPath map[string]*Record
	err    error
}

func (d *decoder) record() *Record {
	name := d.text()
	r := &Record{Name: path.Base(name), Parent: d.byPath[path.Dir(name)], Type: d.bytes(1)[0]}
	r.Mode, r.UID, r.GID = uint16(d.number(0o7777)), uint32(d.number(1<<32-1)), uint32(d.number(1<<32-1))
	r.Size = int64(d.number(1<<63 - 1))
	if sec, err := binary.ReadVarint(d.r); err != nil {
		d.fail(err)
	} else {
		r.Sec = sec
	}
	r.Nsec = int32(d.number(999_999_999))
	r.Target = d.text()
	if first := d.text(); first != "" && first != name {
		if r.First = d.byPath[first]; r.First == nil {
			d.fail(ErrInventory)
		}
	} else if first == name {
		r.First = r
	}
	if r.Type == TypeFile {
		r.SHA256 = (*[32]byte)(d.bytes(32))
	}
	for range d.number(maxSavedXattrs) {
		r.Xattrs = append(r.Xattrs, Xattr{Name: d.text(), Value: []byte(d.text())})
	}
	d.byPath[name] = r
	if r.Path() != name {
		d.fail(ErrInventory)
	}
	return r
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %w", ErrInventory, err)
	}
}

func (d *decoder) number(limit uint64) uint64 {
	n, err := binary.ReadUvarint(d.r)
	if err != nil {
		d.fail(err)
	}
	if n > limit {
		d.fail(ErrInventory)
		return 0
	}
	return n
}

func (d *decoder) bytes(n uint64) []byte {
	b := make([]byte, n)
	if _, err := io.ReadFull(d.r, b); err != nil {
		d.fail(err)
	}
	return b
}

func (d *decoder) text() string { return string(d.bytes(d.number(maxSavedText))) }

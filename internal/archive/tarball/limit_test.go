package tarball

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"imagemanager.internal/test/images"
)

// The extended headers of one entry are accepted at the limit, and refused above it.
func TestRecordLimit(t *testing.T) {
	long := func(typ byte, size int) images.Entry {
		return images.Entry{Name: "long", Type: typ, Body: "x" + strings.Repeat("\x00", size-1)}
	}
	link := images.Entry{Name: "l", Link: "x"}
	for _, c := range []struct {
		name string
		list []images.Entry
		want Code
	}{
		{"one at the limit", []images.Entry{long('L', recordLimit), link}, ""},
		{"one above it", []images.Entry{long('L', recordLimit+1), link}, PAXLimit},
		{"two at the limit", []images.Entry{long('K', recordLimit-700), long('L', 700), link}, ""},
		{"two above it", []images.Entry{long('K', recordLimit-700), long('L', 701), link}, PAXLimit},
		{
			"the next entry has its own",
			[]images.Entry{long('L', recordLimit), link, long('L', recordLimit), link},
			"",
		},
	} {
		_, err := list(t.Context(), images.Tar(c.list...))
		if got := code(t, err); got != c.want {
			t.Errorf("%s: %q, want %q: %v", c.name, got, c.want, err)
		}
	}
}

// code is that of a defect, or empty at the end of a correct archive.
func code(t *testing.T, err error) Code {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if e == nil {
		return ""
	}
	return e.Code
}

// However many extended headers an archive has, the reader keeps those of one entry.
func TestReaderKeepsOneEntry(t *testing.T) {
	comment := images.Records("comment=" + strings.Repeat("c", recordLimit-2000))
	entries := slices.Repeat([]images.Entry{
		{Name: "g", Type: 'g', Body: comment},
		{Name: "x", Type: 'x', Body: comment + images.Records("SCHILY.xattr.user.x=y")},
		{Name: "f"},
		{Name: "long", Type: 'K', Body: comment},
		{Name: "long", Type: 'L', Body: "name"},
		{Name: "l", Link: "x"},
	}, 100)
	b := images.Tar(entries...)
	r := NewReader(bytes.NewReader(b), int64(len(b)), recordLimit)
	for n := 0; ; n++ {
		_, err := r.Next(t.Context())
		if errors.Is(err, io.EOF) && n == 200 {
			break
		}
		if err != nil {
			t.Fatalf("entry %d: %v", n, err)
		}
	}
	kept := cap(r.win.buf) + cap(r.ext.pax) + cap(r.ext.long)
	if kept > 4*recordLimit || len(r.ext.seen) > 2 || cap(r.hdr.Xattrs) > 2 {
		t.Errorf("%d bytes, %d keys and %d attributes are kept", kept, len(r.ext.seen), cap(r.hdr.Xattrs))
	}
}

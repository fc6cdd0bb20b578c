package images

import (
	"bytes"
	"io"
	"os"
	"testing"
)

// A sparse archive reads the same from memory and from a file, at every offset.
func TestSparse(t *testing.T) {
	s := &Sparse{}
	s.Add([]byte("abc"), 5)
	s.Add([]byte("de"), 0)
	s.Add(nil, 3)
	want := []byte("abc\x00\x00\x00\x00\x00de\x00\x00\x00")
	if s.Size() != int64(len(want)) {
		t.Fatalf("%d bytes, want %d", s.Size(), len(want))
	}
	f, err := os.CreateTemp(t.TempDir(), "sparse")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := s.WriteFile(f); err != nil {
		t.Fatal(err)
	}
	for off := range want {
		for name, from := range map[string]io.ReaderAt{"memory": s, "file": f} {
			got, err := io.ReadAll(io.NewSectionReader(from, int64(off), s.Size()))
			if err != nil || !bytes.Equal(got, want[off:]) {
				t.Errorf("%s from byte %d: %q, %v", name, off, got, err)
			}
		}
	}
}

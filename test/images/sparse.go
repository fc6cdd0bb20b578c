package images

import (
	"fmt"
	"io"
	"os"
)

// Sparse is a large archive with long runs of zeros. They take no memory.
type Sparse struct {
	parts []part
	size  int64
}

type part struct {
	off  int64
	data []byte
}

// Add appends data, and zeros after it.
func (s *Sparse) Add(data []byte, zeros int64) {
	s.parts = append(s.parts, part{s.size, data})
	s.size += int64(len(data)) + zeros
}

// Size is the archive's size in bytes.
func (s *Sparse) Size() int64 { return s.size }

// ReadAt reads the archive as an io.ReaderAt.
func (s *Sparse) ReadAt(p []byte, off int64) (int, error) {
	if off >= s.size {
		return 0, io.EOF
	}
	clear(p)
	for _, part := range s.parts {
		if end := part.off + int64(len(part.data)); off < end && part.off < off+int64(len(p)) {
			from, to := max(off, part.off), min(off+int64(len(p)), end)
			copy(p[from-off:], part.data[from-part.off:to-part.off])
		}
	}
	n := min(int64(len(p)), s.size-off)
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// WriteFile writes the archive to an empty file, with holes for the zeros.
func (s *Sparse) WriteFile(f *os.File) error {
	for _, p := range s.parts {
		if _, err := f.WriteAt(p.data, p.off); err != nil {
			return err
		}
	}
	return f.Truncate(s.size)
}

// Sized is a root file system with files of the given sizes, all zeros.
func Sized(sizes ...int64) *Sparse {
	s := &Sparse{}
	s.Add(Blocks(Root()...), 0)
	for i, n := range sizes {
		s.Add(Blocks(Entry{Name: fmt.Sprintf("var/%d", i), Size: n}), (n+blockSize-1)&^(blockSize-1))
	}
	s.Add(nil, 2*blockSize)
	return s
}

// Numbered returns n empty files. format makes a name of a number.
func Numbered(n int, format string) []Entry {
	list := make([]Entry, n)
	for i := range list {
		list[i].Name = fmt.Sprintf(format, i)
	}
	return list
}

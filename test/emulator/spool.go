package emulator

import (
	"errors"
	"io"
	"os"
	"path/filepath"
)

// spool keeps bodies in files of one directory. A file is never changed once it is
// written; an open one outlives its name.
type spool struct {
	dir string
}

// segment is one file.
type segment struct {
	path string
	size int64 // in bytes
}

// body is the content of an object: the segments one after the other. One uploaded in
// parts has several.
type body []segment

func (b body) size() int64 {
	var n int64
	for _, s := range b {
		n += s.size
	}
	return n
}

func (sp *spool) newPath() string {
	return filepath.Join(sp.dir, newToken())
}

// copyBuffer is how much is read at once, in bytes.
const copyBuffer = 256 << 10

// write makes a segment of what r holds, and shows it to the tap on the way. There is no
// file after an error.
func (sp *spool) write(r io.Reader, tap io.Writer) (segment, error) {
	return sp.writeFrom(source{r}, tap)
}

// source is a reader that writes itself, with a large buffer.
type source struct{ r io.Reader }

// WriteTo copies the reader.
func (s source) WriteTo(w io.Writer) (int64, error) {
	return io.CopyBuffer(w, s.r, make([]byte, copyBuffer))
}

// writeFrom is write for what writes itself.
func (sp *spool) writeFrom(in io.WriterTo, tap io.Writer) (segment, error) {
	f, err := os.OpenFile(sp.newPath(), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return segment{}, err
	}
	defer f.Close()
	n, err := in.WriteTo(io.MultiWriter(f, tap))
	if err != nil {
		return segment{}, errors.Join(err, os.Remove(f.Name()))
	}
	return segment{f.Name(), n}, nil
}

// link gives a body a second set of names: the two can be removed apart.
func (sp *spool) link(b body) (body, error) {
	var linked body
	for _, s := range b {
		to := segment{sp.newPath(), s.size}
		if err := os.Link(s.path, to.path); err != nil {
			sp.remove(linked)
			return nil, err
		}
		linked = append(linked, to)
	}
	return linked, nil
}

// remove deletes the files of a body. What cannot be deleted goes with the directory.
func (sp *spool) remove(b body) {
	for _, s := range b {
		_ = os.Remove(s.path)
	}
}

// section is an open part of a body.
type section struct {
	files  []*os.File
	limits []int64 // bytes to read of each file, from where it stands
}

// open opens n bytes of the body from an offset on. All files are open when it returns,
// so that the body may be removed while it is read.
func (b body) open(offset, n int64) (*section, error) {
	s := &section{}
	for _, seg := range b {
		if offset >= seg.size || n == 0 {
			offset = max(0, offset-seg.size)
			continue
		}
		f, err := os.Open(seg.path)
		if err == nil {
			s.files = append(s.files, f)
			_, err = f.Seek(offset, io.SeekStart)
		}
		if err != nil {
			s.Close()
			return nil, err
		}
		take := min(n, seg.size-offset)
		s.limits = append(s.limits, take)
		offset, n = 0, n-take
	}
	return s, nil
}

// WriteTo copies the section; from file to socket without a detour where the writer can.
func (s *section) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for i, f := range s.files {
		n, err := io.CopyN(w, f, s.limits[i])
		total += n
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// Close closes the files.
func (s *section) Close() {
	for _, f := range s.files {
		f.Close()
	}
}

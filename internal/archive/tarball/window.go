package tarball

import (
	"errors"
	"io"
)

// windowSize is how many bytes are read at once. Headers of small files lie close
// together, so one system call reads several.
const windowSize = 32 << 10

// window is a buffer over a part of the archive.
type window struct {
	src   io.ReaderAt
	buf   []byte
	start int64
}

// read returns n bytes at off, valid until the next call. size is that of the archive;
// the caller has checked off+n against it.
func (w *window) read(off int64, n int, size int64) ([]byte, error) {
	if off < w.start || off+int64(n) > w.start+int64(len(w.buf)) {
		if err := w.fill(off, max(n, windowSize), size); err != nil {
			return nil, err
		}
	}
	at := off - w.start
	return w.buf[at : at+int64(n)], nil
}

func (w *window) fill(off int64, n int, size int64) error {
	n = int(min(int64(n), size-off))
	if cap(w.buf) < n {
		w.buf = make([]byte, n)
	}
	w.start, w.buf = off, w.buf[:n]
	got, err := w.src.ReadAt(w.buf, off)
	if got == n {
		return nil
	}
	w.buf = w.buf[:0]
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

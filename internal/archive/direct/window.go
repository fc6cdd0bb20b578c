package direct

import "io"

const (
	windowSize = 64 << 10
	smallRead  = 16 << 10 // what is larger is not worth a copy
)

// window reads an archive ahead: the data of small files are close to each other in it,
// and a system call for each would cost more than the data.
type window struct {
	archive io.ReaderAt
	memory  []byte
	data    []byte // of the archive, from at on
	at      int64
}

func newWindow(archive io.ReaderAt) *window {
	return &window{archive: archive, memory: make([]byte, windowSize)}
}

// ReadAt implements io.ReaderAt.
func (w *window) ReadAt(b []byte, off int64) (int, error) {
	if len(b) > smallRead {
		return w.archive.ReadAt(b, off)
	}
	if off < w.at || off+int64(len(b)) > w.at+int64(len(w.data)) {
		n, err := w.archive.ReadAt(w.memory, off)
		w.data, w.at = w.memory[:n], off
		if n < len(b) {
			return copy(b, w.data), err
		}
	}
	return copy(b, w.data[off-w.at:]), nil
}

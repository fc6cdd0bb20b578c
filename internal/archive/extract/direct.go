package extract

import (
	"errors"
	"io"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// directFrom is the size in bytes from which a file is written and read past the page
	// cache (O_DIRECT). It would displace other files there, and filling fresh pages
	// costs more than the disk. For smaller files the cache is faster: the kernel writes
	// them back, and reads ahead, while the next ones are worked on.
	directFrom = 8 << 20
	// directAlign is what the addresses of direct input and output are multiples of: no
	// device wants more.
	directAlign = 4096
)

// dataFile reads or writes the data of an open file from its beginning to its end.
type dataFile struct {
	fd     int
	direct bool
}

// openData prepares a file of this size for direct input and output if it is large
// enough, and if the file system can do that.
func openData(fd int, size int64) *dataFile {
	f := &dataFile{fd: fd}
	if size >= directFrom {
		_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, unix.O_DIRECT)
		f.direct = err == nil
	}
	return f
}

// allocate sets the space of a new file aside that is written directly. Otherwise each
// write would allocate its own and extend the file.
func (f *dataFile) allocate(size int64) error {
	if !f.direct {
		return nil
	}
	err := retry(func() error { return unix.Fallocate(f.fd, 0, 0, size) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return err
}

// refused reports whether an error only says that this cannot be done directly: a file
// that does not end with a whole sector, or a device with other demands. From then on the
// cache is used; if that cannot be set, the next call fails. Source: open(2), "O_DIRECT".
func (f *dataFile) refused(err error) bool {
	if !f.direct || !errors.Is(err, unix.EINVAL) {
		return false
	}
	f.direct = false
	_, _ = unix.FcntlInt(uintptr(f.fd), unix.F_SETFL, 0)
	return true
}

// read fills a buffer as far as there are data. It returns 0 at the end.
func (f *dataFile) read(data []byte) (int, error) {
	n, err := retryInt(func() (int, error) { return unix.Read(f.fd, data) })
	if f.refused(err) {
		return f.read(data)
	}
	return n, err
}

func (f *dataFile) write(data []byte) error {
	for len(data) > 0 {
		n, err := retryInt(func() (int, error) { return unix.Write(f.fd, data) })
		switch {
		case f.refused(err):
			continue
		case err != nil:
			return err
		case n == 0:
			return io.ErrShortWrite
		}
		data = data[n:]
	}
	return nil
}

// alignedBuffer returns a buffer for direct input and output.
func alignedBuffer(size int) []byte {
	b := make([]byte, size+directAlign)
	off := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) % directAlign
	return b[off : int(off)+size : int(off)+size]
}

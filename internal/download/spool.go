package download

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"imagemanager.internal/internal/failpoint"
)

const (
	// bufferSize is the size of a connection's only buffer in memory, in bytes.
	bufferSize = 128 << 10
	// keepSize asks fallocate(2) for blocks without a change of the file's length:
	// FALLOC_FL_KEEP_SIZE in linux/falloc.h.
	keepSize = 0x1
)

// buffers has the buffers of connections that have ended.
var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// body is the body of an answer, while it is read.
type body struct {
	r          io.Reader
	watchdog   *watchdog
	total      int64 // expected; 0 if not known
	limit      int64
	onProgress func(done, total int64)
	received   func(bytes int)
	unchecked  bool // nobody compares a checksum of these bytes while they are read
}

// spool writes the body to a new file at path. It returns the file when its checksum is
// right and its bytes are on disk.
func spool(ctx context.Context, path string, b body, want checksum) (Blob, error) {
	if err := removeTemp(path); err != nil {
		return Blob{}, err
	}
	// O_EXCL: an existing file, or a link put in our way, is an error.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return Blob{}, err
	}
	defer f.Close()
	if err := preallocate(f, b.total); err != nil {
		return Blob{}, err
	}
	sum := sha256.New()
	if err := b.copyTo(ctx, io.MultiWriter(f, sum)); err != nil {
		return Blob{}, err
	}
	failpoint.Here("before", "sync", "blob")
	if err := want.compare(sum.Sum(nil)); err != nil {
		return Blob{}, err
	}
	if err := f.Sync(); err != nil {
		return Blob{}, err
	}
	blob, err := statBlob(f)
	if err != nil {
		return Blob{}, err
	}
	blob.SHA256 = hexOf(sum)
	return blob, f.Close()
}

// preallocate allocates the blocks before the first byte comes, so a full disk fails at
// once and not after gigabytes. It does nothing if the file system does not support it.
func preallocate(f *os.File, size int64) error {
	if size <= 0 {
		return nil
	}
	err := error(syscall.EINTR)
	for errors.Is(err, syscall.EINTR) { // the runtime preempts goroutines by signal, and this call is long
		err = syscall.Fallocate(int(f.Fd()), keepSize, 0, size)
	}
	if err == nil || errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS) {
		return nil
	}
	return &os.PathError{Op: "fallocate", Path: f.Name(), Err: err}
}

// copyTo writes the body to w. It counts the bytes itself: a header is only a promise.
func (b body) copyTo(ctx context.Context, w io.Writer) error {
	buf, done := buffers.Get().(*[bufferSize]byte), int64(0)
	defer buffers.Put(buf)
	for {
		b.watchdog.arm()
		n, err := b.r.Read(buf[:])
		b.watchdog.disarm()
		done += int64(n)
		b.received(n)
		switch {
		case b.total > 0 && done > b.total:
			return fmt.Errorf("%w: more than the %d bytes promised came", ErrCorrupt, b.total)
		case done > b.limit:
			return fmt.Errorf("%w: more than %d bytes came", ErrTooBig, b.limit)
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		if n > 0 && b.onProgress != nil {
			b.onProgress(done, b.total)
		}
		if err != nil {
			return b.endError(ctx, done, err)
		}
	}
}

// endError returns the error for the end of a body after done bytes. If all promised
// bytes have come and the reader still fails, the reason is the checksum: the SDK
// compares it at the end. If it compares none, the reason is the end of the connection,
// and no error.
func (b body) endError(ctx context.Context, done int64, err error) error {
	all := b.total > 0 && done == b.total
	switch {
	case errors.Is(err, io.EOF) && (all || b.total == 0), all && b.unchecked:
		return nil
	case ctx.Err() != nil && !errors.Is(err, io.EOF):
		return err
	case all:
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	case b.total > 0 || errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: after %d of %d bytes: %w", ErrShort, done, b.total, err)
	}
	return err
}

// statBlob returns a blob with the identifying metadata of an untouched file. Neither
// rename nor reading changes them.
func statBlob(f *os.File) (Blob, error) {
	info, err := f.Stat()
	if err != nil {
		return Blob{}, err
	}
	return Blob{Path: f.Name(), Size: info.Size(), Inode: inode(info), ModTime: info.ModTime()}, nil
}

func inode(info os.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}

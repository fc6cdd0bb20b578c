package download

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"imagemanager.internal/internal/failpoint"
)

const (
	// chunk is the size of the one buffer that a connection has in memory.
	chunk = 256 << 10
	// keepSize asks fallocate(2) for blocks without a change of the file's length:
	// FALLOC_FL_KEEP_SIZE in linux/falloc.h.
	keepSize = 0x1
)

// body is an object's bytes on their way in.
type body struct {
	r          io.Reader
	dog        *watchdog
	total      int64 // expected; 0 if not known
	limit      int64
	onProgress func(done, total int64)
	unchecked  bool // nobody compares a checksum of these bytes as they come
}

// spool writes the body to a new file at path and returns it when its bytes are those
// wanted and on disk.
func spool(ctx context.Context, path string, b body, want checksum) (Blob, error) {
	if err := discard(path); err != nil {
		return Blob{}, err
	}
	// O_EXCL: whatever is put in our way, a link included, is an error and not followed.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return Blob{}, err
	}
	defer f.Close()
	if err := reserve(f, b.total); err != nil {
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
	blob, err := describe(f)
	if err != nil {
		return Blob{}, err
	}
	blob.SHA256 = hexOf(sum)
	return blob, f.Close()
}

// reserve takes the blocks before the first byte comes, so that a full disk is known at
// once and not after gigabytes. A file system that cannot do so is left alone.
func reserve(f *os.File, size int64) error {
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

// copyTo writes the body. The count is kept here, not taken from a header: a header is a
// promise.
func (b body) copyTo(ctx context.Context, w io.Writer) error {
	buf, done := make([]byte, chunk), int64(0)
	for {
		b.dog.listen()
		n, err := b.r.Read(buf)
		b.dog.pause()
		done += int64(n)
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
			return b.ended(ctx, done, err)
		}
	}
}

// ended judges how the body ended after done bytes. When all that was promised has come
// and the reader still complains, the one thing left to complain about is the checksum,
// which the SDK compares at the end. Where it compares none, it is the end of the
// connection: no matter.
func (b body) ended(ctx context.Context, done int64, err error) error {
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

// describe reads what identifies a file that has not been touched since. Neither rename
// nor reading changes it.
func describe(f *os.File) (Blob, error) {
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

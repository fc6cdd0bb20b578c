package extract

import (
	"context"
	"crypto/sha256"
	"errors"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/archive/fstree"
)

// fileBatch is a number of open files, to be read one after the other.
type fileBatch []openRecord

type openRecord struct {
	record *fstree.Record
	fd     int
}

// open adds a file. The kernel begins to read a small one at once: so the whole batch is
// on its way before the first data are waited for.
func (b *fileBatch) open(dir int, rec *fstree.Record) error {
	fd, err := openFile(dir, rec.Name)
	if err != nil {
		return err
	}
	*b = append(*b, openRecord{rec, fd})
	if rec.Size > 0 && rec.Size < bufferSize {
		_ = unix.Fadvise(fd, 0, rec.Size, unix.FADV_WILLNEED) // advice only
	}
	return nil
}

func (b fileBatch) close() (err error) {
	for _, f := range b {
		err = errors.Join(err, unix.Close(f.fd))
	}
	return err
}

// read takes the attributes of all files, and of a directory if own is not nil. Then it
// reads the data.
func (b fileBatch) read(ctx context.Context, buffers *bufferPair, dir int, own *fstree.Record) error {
	if len(b) == 0 && own == nil {
		return nil
	}
	_, err := withRaised(trustedXattrCaps, func() (struct{}, error) { return struct{}{}, b.listXattrs(dir, own) })
	if err != nil {
		return err
	}
	for _, f := range b {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := readData(ctx, buffers, f.fd, f.record); err != nil {
			return nameRecord(f.record, err)
		}
	}
	return nil
}

// listXattrs is called with a capability raised, once for the whole batch: to raise it
// for each file took a third of all system calls. It gets open descriptors and no names.
func (b fileBatch) listXattrs(dir int, own *fstree.Record) (err error) {
	if own != nil {
		if own.Xattrs, err = listXattrs(dir); err != nil {
			return err
		}
	}
	for _, f := range b {
		if f.record.Xattrs, err = listXattrs(f.fd); err != nil {
			return nameRecord(f.record, err)
		}
	}
	return nil
}

// readData takes the digest of a file's data. One call reads a small file, and one byte
// more than it should have: if that is not there, this was the end.
func readData(ctx context.Context, b *bufferPair, fd int, rec *fstree.Record) error {
	if rec.Size >= bufferSize {
		return readLargeData(ctx, b, fd, rec)
	}
	data := b[0][:rec.Size+1]
	n, err := retryInt(func() (int, error) { return unix.Read(fd, data) })
	if err != nil {
		return err
	}
	if int64(n) != rec.Size { // not as long as its inode says: all that there is counts
		if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
			return err
		}
		return readLargeData(ctx, b, fd, rec)
	}
	sum := sha256.Sum256(data[:n])
	rec.SHA256 = &sum
	return nil
}

// readLargeData hashes one buffer beside the reading of the next.
func readLargeData(ctx context.Context, b *bufferPair, fd int, rec *fstree.Record) error {
	hash := newHasher()
	defer hash.wait()
	f := openData(fd, rec.Size)
	for k := 0; ; k ^= 1 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := f.read(b[k])
		if err != nil {
			return err
		}
		if n == 0 {
			sum, err := hash.sum()
			rec.SHA256 = &sum
			return err
		}
		if err := hash.add(b[k][:n], n == bufferSize); err != nil {
			return err
		}
	}
}

package extract

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/archive/fstree"
)

// lostFound is made by mkfs. It is empty unless a file system check put files into it.
const lostFound = "lost+found"

// ReadBack makes the inventory of a mounted file system: everything below root, an open
// directory, except an empty lost+found and the seal record.
//
// It follows no symbolic link and opens directories and regular files only. Its threads
// keep only the capabilities for reading all files and seeing all attributes. Errors are
// the cause of ctx, a *archive.Panic, and errno.
func ReadBack(ctx context.Context, root *os.File) (*fstree.Inventory, error) {
	return readBack(ctx, withOnlyCapabilities(readCaps, trustedXattrCaps), root)
}

func readBack(ctx context.Context, in confine, root *os.File) (*fstree.Inventory, error) {
	return confined(in, func() (*fstree.Inventory, error) { return readTree(ctx, in, root) })
}

// readTree is called confined, and confines its workers.
func readTree(ctx context.Context, in confine, root *os.File) (*fstree.Inventory, error) {
	fd, err := openDir(int(root.Fd()), "") // with an offset of its own
	if err != nil {
		return nil, fmt.Errorf("read back: %w", err)
	}
	inner, workers := startWorkers(ctx, in)
	r := &reader{workers: workers, first: map[uint64]*fstree.Record{}}
	err = archive.CatchPanic(func() error { return r.readDir(inner, fd, nil) })
	err = workers.finish(inner, errors.Join(err, unix.Close(fd)))
	if err != nil {
		return nil, fmt.Errorf("read back: %w", err)
	}
	for _, rec := range r.records {
		if rec.First != nil {
			rec.SHA256, rec.Xattrs = rec.First.SHA256, rec.First.Xattrs
		}
	}
	return &fstree.Inventory{Records: r.records}, nil
}

// reader reads one tree. One goroutine lists directories; workers hash files.
type reader struct {
	workers *workerPool
	records []*fstree.Record
	first   map[uint64]*fstree.Record // by inode number, of files with several names
}

func (r *reader) readDir(ctx context.Context, fd int, parent *fstree.Record) error {
	names, err := readNames(ctx, fd)
	if err != nil {
		return err
	}
	for _, name := range names {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := r.readEntry(ctx, fd, parent, name); err != nil {
			return fmt.Errorf("%q: %w", fstree.TruncateName(name), err)
		}
	}
	return nil
}

func (r *reader) readEntry(ctx context.Context, dir int, parent *fstree.Record, name string) error {
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) }); err != nil {
		return err
	}
	if parent == nil && name == archive.SealRecordName && isSealRecord(&st) {
		return nil
	}
	rec := &fstree.Record{
		Parent: parent, Name: strings.Clone(name), Type: recordType(st.Mode), Mode: uint16(st.Mode & 0o7777),
		UID: st.Uid, GID: st.Gid, Sec: st.Mtim.Sec, Nsec: int32(st.Mtim.Nsec),
	}
	switch rec.Type {
	case fstree.TypeDir:
		return r.readSubdir(ctx, dir, rec)
	case fstree.TypeFile:
		rec.Size = st.Size
		return r.readFile(ctx, dir, rec, &st)
	case fstree.TypeSymlink:
		target, err := readLink(dir, name)
		rec.Target = target
		r.records = append(r.records, rec)
		return err
	}
	r.records = append(r.records, rec)
	return nil
}

// readSubdir reads a directory, but not an empty lost+found at the top.
func (r *reader) readSubdir(ctx context.Context, dir int, rec *fstree.Record) (err error) {
	fd, err := openDir(dir, rec.Name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	if rec.Parent == nil && rec.Name == lostFound {
		names, err := readNames(ctx, fd)
		if err != nil || len(names) == 0 {
			return err
		}
		if _, err := unix.Seek(fd, 0, io.SeekStart); err != nil {
			return err
		}
	}
	if rec.Xattrs, err = readXattrs(fd); err != nil {
		return err
	}
	r.records = append(r.records, rec)
	return r.readDir(ctx, fd, rec)
}

// readFile has a worker hash a file, once for all its names.
func (r *reader) readFile(ctx context.Context, dir int, rec *fstree.Record, st *unix.Stat_t) error {
	r.records = append(r.records, rec)
	if st.Nlink > 1 {
		if rec.First = r.first[st.Ino]; rec.First != nil {
			return nil
		}
		r.first[st.Ino] = rec
	}
	fd, err := openFile(dir, rec.Name)
	if err != nil {
		return err
	}
	err = r.workers.submit(ctx, func(ctx context.Context, b *bufferPair) (err error) {
		defer func() { err = errors.Join(err, unix.Close(fd)) }()
		if err := readContent(ctx, b, fd, rec); err != nil {
			return fmt.Errorf("%q: %w", fstree.TruncateName(rec.Path()), err)
		}
		return nil
	})
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	return nil
}

// readContent fills in a file's digest and attributes.
func readContent(ctx context.Context, b *bufferPair, fd int, rec *fstree.Record) (err error) {
	if rec.Xattrs, err = readXattrs(fd); err != nil {
		return err
	}
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
		data := b[k][:n]
		if err := hash.add(data, n == bufferSize); err != nil {
			return err
		}
	}
}

// readNames lists a directory, sorted by the bytes of the names.
func readNames(ctx context.Context, fd int) ([]string, error) {
	var names []string
	buf := make([]byte, 32<<10)
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		n, err := retryInt(func() (int, error) { return unix.Getdents(fd, buf) })
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			slices.SortFunc(names, cmp.Compare)
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

func readLink(at int, name string) (string, error) {
	buf := make([]byte, 4097)
	n, err := unix.Readlinkat(at, name, buf)
	if err != nil {
		return "", err
	}
	if n == len(buf) {
		return "", io.ErrShortBuffer
	}
	return string(buf[:n]), nil
}

// recordType returns the type of a record for the mode of a file. Types that no archive
// may bring have letters of their own.
func recordType(mode uint32) byte {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return fstree.TypeDir
	case unix.S_IFREG:
		return fstree.TypeFile
	case unix.S_IFLNK:
		return fstree.TypeSymlink
	case unix.S_IFCHR:
		return 'c'
	case unix.S_IFBLK:
		return 'b'
	case unix.S_IFIFO:
		return 'p'
	case unix.S_IFSOCK:
		return 's'
	}
	return '?'
}

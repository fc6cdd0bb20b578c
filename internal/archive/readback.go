package archive

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
)

const (
	lostFound = "lost+found" // made by mkfs; empty unless a file system check filled it
	// selinux is set by kernels that enforce SELinux on everything that is made; it is
	// not the image's.
	selinux = "security.selinux"
)

// ReadManifest reads a mounted tree back: everything below root, an open directory, but
// an empty lost+found and the seal record. No symbolic link is followed, and nothing is
// opened but directories and regular files, by threads that keep no capabilities but
// those to read what nobody may and to see all attributes. Errors are the cause of ctx
// and errno.
func ReadManifest(ctx context.Context, root *os.File) (*Manifest, error) {
	return readManifest(ctx, only(reading, listing), root)
}

func readManifest(ctx context.Context, in confinement, root *os.File) (m *Manifest, err error) {
	err = in(func() error { m, err = readTree(ctx, in, root); return err })
	return m, err
}

// readTree is called where it is confined, and confines its crew.
func readTree(ctx context.Context, in confinement, root *os.File) (*Manifest, error) {
	fd, err := openDir(int(root.Fd()), "") // with an offset of its own
	if err != nil {
		return nil, fmt.Errorf("read back: %w", err)
	}
	inner, crew := startCrew(ctx, in)
	r := &reader{crew: crew, first: map[uint64]*Record{}}
	err = guarded(func() error { return r.dir(inner, fd, nil) })
	err = crew.finish(inner, errors.Join(err, unix.Close(fd)))
	if err != nil {
		return nil, fmt.Errorf("read back: %w", err)
	}
	for _, rec := range r.records {
		if rec.First != nil {
			rec.SHA256, rec.Xattrs = rec.First.SHA256, rec.First.Xattrs
		}
	}
	return &Manifest{Records: r.records}, nil
}

// reader walks a tree.
type reader struct {
	crew    *crew
	records []*Record
	first   map[uint64]*Record // by inode number, of files with several names
}

func (r *reader) dir(ctx context.Context, fd int, parent *Record) error {
	names, err := readNames(ctx, fd)
	if err != nil {
		return err
	}
	for _, name := range names {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := r.entry(ctx, fd, parent, name); err != nil {
			return fmt.Errorf("%q: %w", shorten(name), err)
		}
	}
	return nil
}

func (r *reader) entry(ctx context.Context, dir int, parent *Record, name string) error {
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) }); err != nil {
		return err
	}
	if parent == nil && name == sealName && isSeal(&st) {
		return nil
	}
	rec := &Record{
		Parent: parent, Name: strings.Clone(name), Type: typeOf(st.Mode), Mode: uint16(st.Mode & 0o7777), UID: st.Uid,
		GID: st.Gid,
		Sec: st.Mtim.Sec, Nsec: int32(st.Mtim.Nsec),
	}
	switch rec.Type {
	case TypeDir:
		return r.subdir(ctx, dir, rec)
	case TypeFile:
		rec.Size = st.Size
		return r.file(ctx, dir, rec, &st)
	case TypeSymlink:
		target, err := readLink(dir, name)
		rec.Target = target
		r.records = append(r.records, rec)
		return err
	}
	r.records = append(r.records, rec)
	return nil
}

// subdir reads a directory. That of mkfs is passed over where it is empty.
func (r *reader) subdir(ctx context.Context, dir int, rec *Record) (err error) {
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
	return r.dir(ctx, fd, rec)
}

// file has a file hashed, once for all its names.
func (r *reader) file(ctx context.Context, dir int, rec *Record, st *unix.Stat_t) error {
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
	err = r.crew.do(ctx, func(ctx context.Context, b *buffers) (err error) {
		defer func() { err = errors.Join(err, unix.Close(fd)) }()
		if err := rec.read(ctx, b, fd); err != nil {
			return fmt.Errorf("%q: %w", shorten(rec.Path()), err)
		}
		return nil
	})
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	return nil
}

// read takes a file's digest and attributes.
func (rec *Record) read(ctx context.Context, b *buffers, fd int) (err error) {
	if rec.Xattrs, err = readXattrs(fd); err != nil {
		return err
	}
	hash := newHasher()
	defer hash.wait()
	for k := 0; ; k ^= 1 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var n int
		if err := retry(func() (err error) { n, err = unix.Read(fd, b[k]); return err }); err != nil {
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

// readNames lists a directory, by the bytes of the names.
func readNames(ctx context.Context, fd int) ([]string, error) {
	var names []string
	buf := make([]byte, 32<<10)
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		var n int
		if err := retry(func() (err error) { n, err = unix.Getdents(fd, buf); return err }); err != nil {
			return nil, err
		}
		if n <= 0 {
			slices.SortFunc(names, cmp.Compare)
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

// openFile opens a regular file by a single name; should it have become a pipe, the open
// does not wait for a writer.
func openFile(at int, name string) (fd int, err error) {
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	err = retry(func() error { fd, err = unix.Openat(at, name, flags, 0); return err })
	return fd, err
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

// readXattrs returns a file's attributes by name, also those that only an administrator
// sees.
func readXattrs(fd int) (list []Xattr, err error) {
	err = raised(listing, func() error { list, err = listXattrs(fd); return err })
	return list, err
}

func listXattrs(fd int) ([]Xattr, error) {
	size, err := unix.Flistxattr(fd, nil)
	if size == 0 || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	buf := make([]byte, size)
	if size, err = unix.Flistxattr(fd, buf); err != nil {
		return nil, err
	}
	var list []Xattr
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:size]), "\x00"), "\x00") {
		if name == "" || name == selinux {
			continue
		}
		value, err := readXattr(fd, name)
		if err != nil {
			return nil, err
		}
		list = append(list, Xattr{Name: name, Value: value})
	}
	slices.SortFunc(list, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

func readXattr(fd int, name string) ([]byte, error) {
	size, err := unix.Fgetxattr(fd, name, nil)
	if err != nil || size == 0 {
		return nil, err
	}
	value := make([]byte, size)
	size, err = unix.Fgetxattr(fd, name, value)
	if err != nil {
		return nil, err
	}
	return value[:size], nil
}

func typeOf(mode uint32) byte {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return TypeDir
	case unix.S_IFREG:
		return TypeFile
	case unix.S_IFLNK:
		return TypeSymlink
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

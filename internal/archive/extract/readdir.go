package extract

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/archive/fstree"
)

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

// isEmptyDir reports whether a directory has no entries.
func isEmptyDir(ctx context.Context, at int, name string) (bool, error) {
	fd, err := openDir(at, name)
	if err != nil {
		return false, err
	}
	names, err := readNames(ctx, fd)
	return len(names) == 0, errors.Join(err, unix.Close(fd))
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

package archive

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

const (
	sealName  = "seal.json" // what the caller records about the tree, beside it
	sealMode  = 0o600
	sealBytes = 16 << 10
)

// ErrSeal says that the file of the seal record is not as WriteSeal makes it.
var ErrSeal = errors.New("seal record is not a file as it was written")

// WriteSeal writes a record of at most 16 KiB beside the tree that Extract wrote below
// root, for the caller to synchronise. It is no part of the tree: what lies there lies
// below rootfs/, so no archive can bring one, and ReadManifest passes it over.
func WriteSeal(root *os.File, record []byte) error {
	if len(record) == 0 || len(record) > sealBytes {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrSeal, len(record), sealBytes)
	}
	if err := only(writing, 0)(func() error { return writeSeal(int(root.Fd()), record) }); err != nil {
		return fmt.Errorf("write %s: %w", sealName, err)
	}
	return nil
}

func writeSeal(root int, record []byte) error {
	fd, err := createFile(root, sealName)
	if err != nil {
		return err
	}
	n := node{name: sealName, mode: sealMode}
	err = writeAll(fd, record)
	return errors.Join(err, setAttributes(fd, &n, nil), setTimes(root, sealName, &n), unix.Close(fd))
}

// ReadSeal returns the record that WriteSeal wrote below root. A tree without one is
// fs.ErrNotExist; a file that WriteSeal would not have made, ErrSeal.
func ReadSeal(root *os.File) (record []byte, err error) {
	err = only(reading, 0)(func() error { record, err = readSeal(int(root.Fd())); return err })
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", sealName, err)
	}
	return record, nil
}

func readSeal(root int) ([]byte, error) {
	fd, err := openFile(root, sealName)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, fs.ErrNotExist
	case errors.Is(err, unix.ELOOP): // a symbolic link, not followed
		return nil, fmt.Errorf("%w: %w", ErrSeal, err)
	case err != nil:
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if !isSeal(&st) {
		return nil, ErrSeal
	}
	record := make([]byte, st.Size)
	for done := 0; done < len(record); {
		var n int
		if err := retry(func() (err error) {
			n,
				err = unix.Pread(fd, record[done:], int64(done))
			return err
		}); err != nil {
			return nil, err
		}
		if n == 0 {
			return nil, io.ErrUnexpectedEOF
		}
		done += n
	}
	return record, nil
}

// isSeal reports whether a file is as WriteSeal makes it: what ReadManifest passes over
// has no room for anything else.
func isSeal(st *unix.Stat_t) bool {
	return st.Mode == unix.S_IFREG|sealMode && st.Nlink == 1 && st.Uid == 0 && st.Gid == 0 &&
		st.Mtim == (unix.Timespec{}) && st.Size > 0 && st.Size <= sealBytes
}

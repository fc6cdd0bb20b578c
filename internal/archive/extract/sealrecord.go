package extract

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/archive/fstree"
)

// WriteSealRecord writes a record of at most 16 KiB beside the tree below root; the
// caller synchronises the file system. No archive can bring a seal record, as its files
// lie below rootfs/. ReadBack leaves it out.
func WriteSealRecord(root *os.File, record []byte) error {
	if err := archive.CheckSealRecord(record); err != nil {
		return err
	}
	in := withOnlyCapabilities(writeCaps, 0)
	if err := in(func() error { return writeSealRecord(int(root.Fd()), record) }); err != nil {
		return fmt.Errorf("write %s: %w", archive.SealRecordName, err)
	}
	return nil
}

func writeSealRecord(root int, record []byte) error {
	fd, err := createFile(root, archive.SealRecordName)
	if err != nil {
		return err
	}
	n := fstree.Node{Name: archive.SealRecordName, Mode: archive.SealRecordMode}
	err = writeAll(fd, record)
	return errors.Join(err, setAttributes(fd, &n, nil), setTimes(root, archive.SealRecordName, &n), unix.Close(fd))
}

// ReadSealRecord returns the record that WriteSealRecord wrote below root. It returns
// fs.ErrNotExist if there is none, and archive.ErrSealRecord for a file that
// WriteSealRecord would not have made.
func ReadSealRecord(root *os.File) ([]byte, error) {
	record, err := confined(withOnlyCapabilities(readCaps, 0),
		func() ([]byte, error) { return readSealRecord(int(root.Fd())) })
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", archive.SealRecordName, err)
	}
	return record, nil
}

func readSealRecord(root int) ([]byte, error) {
	fd, err := openFile(root, archive.SealRecordName)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, fs.ErrNotExist
	case errors.Is(err, unix.ELOOP): // a symbolic link, not followed
		return nil, fmt.Errorf("%w: %w", archive.ErrSealRecord, err)
	case err != nil:
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if !isSealRecord(&st) {
		return nil, archive.ErrSealRecord
	}
	record := make([]byte, st.Size)
	for done := 0; done < len(record); {
		n, err := retryInt(func() (int, error) { return unix.Pread(fd, record[done:], int64(done)) })
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return nil, io.ErrUnexpectedEOF
		}
		done += n
	}
	return record, nil
}

// isSealRecord reports whether a file is as WriteSealRecord makes it. ReadBack leaves out
// no other file, so it cannot overlook anything.
func isSealRecord(st *unix.Stat_t) bool {
	return st.Mode == unix.S_IFREG|archive.SealRecordMode && st.Nlink == 1 && st.Uid == 0 && st.Gid == 0 &&
		st.Mtim == (unix.Timespec{}) && st.Size > 0 && st.Size <= archive.MaxSealRecord
}

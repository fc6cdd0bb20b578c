package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mattn/go-sqlite3"

	"imagemanager.internal/internal/durable"
)

// BackedUp describes a copy of the database.
type BackedUp struct {
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"`
	Seq   int64  `json:"seq"` // number of the last event in it, 0 if there is none
}

// Backup copies the database, as it is at one moment, to a file, while others write to
// it. The file is complete, synced and checked when it gets its name; a crash leaves at
// most a file whose name ends in .part. An existing file is fs.ErrExist unless it may be
// replaced; the database's own files never are.
func (s *Store) Backup(ctx context.Context, path string, replace bool) (b BackedUp, err error) {
	if b.Path, err = filepath.Abs(path); err != nil {
		return b, err
	}
	if err := s.mayWrite(b.Path, replace); err != nil {
		return b, err
	}
	f, err := os.CreateTemp(filepath.Dir(b.Path), filepath.Base(b.Path)+".*.part")
	if err != nil {
		return b, err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if e := os.Remove(f.Name()); e != nil && !errors.Is(e, fs.ErrNotExist) { // renamed: there is nothing
			err = errors.Join(err, e)
		}
	}()
	if err := s.copyTo(ctx, f.Name()); err != nil {
		return b, fmt.Errorf("copy the database: %w", damaged(s.path, err))
	}
	if b.Seq, err = checkCopy(ctx, f.Name()); err != nil {
		return b, fmt.Errorf("the copy of %s: %w", s.path, err)
	}
	info, err := f.Stat()
	if err != nil {
		return b, err
	}
	b.Bytes = info.Size()
	if err := errors.Join(f.Sync(), s.mayWrite(b.Path, replace)); err != nil {
		return b, err
	}
	return b, durable.Rename(f.Name(), b.Path)
}

// mayWrite refuses to replace a file, and the database itself in any case.
func (s *Store) mayWrite(path string, replace bool) error {
	there, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if own, err := os.Stat(s.path + suffix); err == nil && os.SameFile(own, there) {
			return fmt.Errorf("%s is the database itself: %w", path, fs.ErrInvalid)
		}
	}
	if !replace || !there.Mode().IsRegular() {
		return &fs.PathError{Op: "back up to", Path: path, Err: fs.ErrExist}
	}
	return nil
}

// copyTo copies in one step, which is one read transaction: in WAL mode it neither waits
// for writers nor makes them wait, and sees none of what they write meanwhile
// (https://www.sqlite.org/c3ref/backup_finish.html).
func (s *Store) copyTo(ctx context.Context, path string) (err error) {
	conn, err := s.read.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	to, err := new(sqlite3.SQLiteDriver).
		Open(fileURL(path, map[string]string{"mode": "rw", "_journal_mode": "OFF", "_synchronous": "OFF"}))
	if err != nil {
		return err
	}
	err = conn.Raw(func(from any) error { return copyAll(to, from) })
	return errors.Join(err, to.Close())
}

func copyAll(to driver.Conn, from any) error {
	dst, ok := to.(*sqlite3.SQLiteConn)
	src, too := from.(*sqlite3.SQLiteConn)
	if !ok || !too {
		return fmt.Errorf("no SQLite connections: %T, %T", to, from)
	}
	b, err := dst.Backup("main", src, "main")
	if err != nil {
		return err
	}
	done, err := b.Step(-1)
	if err == nil && !done {
		err = sqlite3.Error{Code: sqlite3.ErrBusy}
	}
	return errors.Join(err, b.Finish())
}

// checkCopy checks the copy and returns the number of its last event. Immutable: no log
// is made beside a file that gets another name.
func checkCopy(ctx context.Context, path string) (seq int64, err error) {
	db, err := sql.Open("sqlite3", fileURL(path, map[string]string{"mode": "ro", "immutable": "1"}))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := soundness(ctx, db, "PRAGMA integrity_check(1)", path); err != nil {
		return 0, err
	}
	err = db.QueryRowContext(ctx, "SELECT ifnull(max(seq), 0) FROM events").Scan(&seq)
	return seq, err
}

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

const lastSeq = `SELECT ifnull(max(seq), 0) FROM events`

// BackupInfo describes a backup of the database.
type BackupInfo struct {
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"`
	Seq   int64  `json:"seq"` // number of its last event, 0 for none
}

// Backup copies the database, as it is at one moment, to a file. Others may write to the
// database meanwhile. The file gets its name when it is complete, synced and checked. A
// crash leaves at most a file whose name ends in .part.
//
// It returns fs.ErrExist for an existing file, unless replace is set. The database's own
// files are never replaced.
func (s *Store) Backup(ctx context.Context, path string, replace bool) (b BackupInfo, err error) {
	if b.Path, err = filepath.Abs(path); err != nil {
		return b, err
	}
	if err := checkTarget(s.path, b.Path, replace); err != nil {
		return b, err
	}
	f, err := os.CreateTemp(filepath.Dir(b.Path), filepath.Base(b.Path)+".*.part")
	if err != nil {
		return b, err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if e := os.Remove(f.Name()); e != nil && !errors.Is(e, fs.ErrNotExist) { // gone after the rename
			err = errors.Join(err, e)
		}
	}()
	if err := copyDatabase(ctx, s.readDB, f.Name()); err != nil {
		return b, fmt.Errorf("copy the database: %w", asCorrupt(s.path, err))
	}
	if b.Seq, err = checkCopy(ctx, f.Name()); err != nil {
		return b, fmt.Errorf("the copy of %s: %w", s.path, err)
	}
	info, err := f.Stat()
	if err != nil {
		return b, err
	}
	b.Bytes = info.Size()
	if err := errors.Join(f.Sync(), checkTarget(s.path, b.Path, replace)); err != nil {
		return b, err
	}
	return b, durable.Rename(f.Name(), b.Path)
}

// checkTarget refuses an existing file unless it may be replaced, and always refuses the
// files of the database itself.
func checkTarget(database, path string, replace bool) error {
	there, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if own, err := os.Stat(database + suffix); err == nil && os.SameFile(own, there) {
			return fmt.Errorf("%s is the database itself: %w", path, fs.ErrInvalid)
		}
	}
	if !replace || !there.Mode().IsRegular() {
		return &fs.PathError{Op: "back up to", Path: path, Err: fs.ErrExist}
	}
	return nil
}

// copyDatabase copies in one step, so in one read transaction. In WAL mode it neither
// waits for writers nor makes them wait, and it sees nothing of their writes meanwhile
// (https://www.sqlite.org/c3ref/backup_finish.html).
func copyDatabase(ctx context.Context, db *sql.DB, path string) (err error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	to, err := new(sqlite3.SQLiteDriver).
		Open(fileURL(path, map[string]string{"mode": "rw", "_journal_mode": "OFF", "_synchronous": "OFF"}))
	if err != nil {
		return err
	}
	err = conn.Raw(func(from any) error { return copyPages(to, from) })
	return errors.Join(err, to.Close())
}

func copyPages(to driver.Conn, from any) error {
	dst, ok := to.(*sqlite3.SQLiteConn)
	src, too := from.(*sqlite3.SQLiteConn)
	if !ok || !too {
		return fmt.Errorf("not SQLite connections: %T, %T", to, from)
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

// checkCopy checks the copy and returns the number of its last event. It opens the copy
// as immutable: SQLite must not make a WAL beside it, because the copy is renamed
// afterwards.
func checkCopy(ctx context.Context, path string) (seq int64, err error) {
	db, err := sql.Open("sqlite3", fileURL(path, map[string]string{"mode": "ro", "immutable": "1"}))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := integrityCheck(ctx, db, "PRAGMA integrity_check(1)", path); err != nil {
		return 0, err
	}
	err = db.QueryRowContext(ctx, lastSeq).Scan(&seq)
	return seq, err
}

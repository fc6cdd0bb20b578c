package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/mattn/go-sqlite3"
)

// ErrCorrupt is returned when the database file is damaged. Nothing is written to it.
var ErrCorrupt = errors.New("the database is damaged")

// minFileSize is the size of the smallest database: one page of the smallest size.
const minFileSize = 512

// Corrupt reports whether err means a damaged file, as found by SQLite or by this
// package. A disk may have caused it, a copy made during a write, or another program.
func Corrupt(err error) bool {
	var e sqlite3.Error
	return errors.Is(err, ErrCorrupt) || errors.As(err, &e) &&
		(e.Code == sqlite3.ErrCorrupt || e.Code == sqlite3.ErrNotADB)
}

// asCorrupt adds ErrCorrupt and the file's name to SQLite's error about a damaged file.
// It returns other errors as they are.
func asCorrupt(path string, err error) error {
	if !Corrupt(err) || errors.Is(err, ErrCorrupt) {
		return err
	}
	return fmt.Errorf("%w: %s: %w", ErrCorrupt, path, err)
}

// checkFile reads the whole file and looks for the damage that SQLite can see. The
// connection is read-only, because a refused database must not be migrated first, nor its
// WAL be written into it. Only a rollback journal is rolled back. A missing or empty file
// is a new database.
func checkFile(ctx context.Context, path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && info.Size() == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Size() < minFileSize { // SQLite would take it for a new database
		return fmt.Errorf("%w: %s: it has %d bytes", ErrCorrupt, path, info.Size())
	}
	err = quickCheck(ctx, path, "ro")
	if e := (sqlite3.Error{}); errors.As(err, &e) && e.ExtendedCode == sqlite3.ErrReadonlyRollback {
		// A power cut left a rollback journal. The database after the rollback is what
		// has to be checked.
		err = quickCheck(ctx, path, "rw")
	}
	return asCorrupt(path, err)
}

func quickCheck(ctx context.Context, path, mode string) (err error) {
	db, err := sql.Open("sqlite3", fileURL(path, map[string]string{"mode": mode, "_busy_timeout": "5000"}))
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return integrityCheck(ctx, db, "PRAGMA quick_check(1)", path)
}

// integrityCheck runs a pragma that answers "ok" or describes the damage, in one row.
// name is the file's name in an error.
func integrityCheck(ctx context.Context, db *sql.DB, pragma, name string) error {
	var answer string
	if err := db.QueryRowContext(ctx, pragma).Scan(&answer); err != nil {
		return fmt.Errorf("check: %w", err)
	}
	if answer != "ok" {
		return fmt.Errorf("%w: %s: %s", ErrCorrupt, name, strings.ReplaceAll(answer, "\n", "; "))
	}
	return nil
}

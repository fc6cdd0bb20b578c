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

// ErrCorrupt says that the database file is not what SQLite wrote. Nothing is written to
// it.
var ErrCorrupt = errors.New("the database is damaged")

// smallest is the size of the smallest database: one page of the smallest size.
const smallest = 512

// Damaged tells whether err is SQLite's word, or ours, that the file is damaged: by a
// disk, a copy made while it was written to, or another program.
func Damaged(err error) bool {
	var e sqlite3.Error
	return errors.Is(err, ErrCorrupt) || errors.As(err, &e) &&
		(e.Code == sqlite3.ErrCorrupt || e.Code == sqlite3.ErrNotADB)
}

// damaged gives SQLite's word its meaning and the file's name. Other errors it returns as
// they are.
func damaged(path string, err error) error {
	if !Damaged(err) || errors.Is(err, ErrCorrupt) {
		return err
	}
	return fmt.Errorf("%w: %s: %w", ErrCorrupt, path, err)
}

// check reads the whole file for the damage that SQLite can see, through a connection
// that cannot write: a database that is to be refused is not migrated before, nor is its
// log brought into it. Only a rollback journal is rolled back. A file that is not there,
// or empty, is a new database.
func check(ctx context.Context, path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && info.Size() == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Size() < smallest { // SQLite would take it for a new one
		return fmt.Errorf("%w: %s: it has %d bytes", ErrCorrupt, path, info.Size())
	}
	err = checkAs(ctx, path, "ro")
	if e := (sqlite3.Error{}); errors.As(err, &e) && e.ExtendedCode == sqlite3.ErrReadonlyRollback {
		// A power cut left a rollback journal. What is to be checked is what SQLite makes
		// of it.
		err = checkAs(ctx, path, "rw")
	}
	return damaged(path, err)
}

func checkAs(ctx context.Context, path, mode string) (err error) {
	db, err := sql.Open("sqlite3", fileURL(path, map[string]string{"mode": mode, "_busy_timeout": "5000"}))
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return soundness(ctx, db, "PRAGMA quick_check(1)", path)
}

// soundness runs a check that answers with one row, ok or what it found. name is that of
// the file in an error.
func soundness(ctx context.Context, db *sql.DB, pragma, name string) error {
	var verdict string
	if err := db.QueryRowContext(ctx, pragma).Scan(&verdict); err != nil {
		return fmt.Errorf("check: %w", err)
	}
	if verdict != "ok" {
		return fmt.Errorf("%w: %s: %s", ErrCorrupt, name, strings.ReplaceAll(verdict, "\n", "; "))
	}
	return nil
}

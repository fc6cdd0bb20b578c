// Package store keeps the journal of every image in SQLite, and the tables that are its
// fold.
//
// An image's state is nothing but the fold of its events (see Fold). The tables images,
// devices and snapshots are written in the same transaction as the event that changes
// them, so they can be read instead of the journal but never differ from it. Exported
// methods open the transaction, unexported functions take it; no transaction spans a
// system call outside SQLite.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/mattn/go-sqlite3" // registers the driver "sqlite3"
)

var (
	// ErrNotFound says that no row answers the question.
	ErrNotFound = errors.New("not found in the journal")
	// ErrFenced says that the attempt which wants to write is no longer the image's
	// current one: somebody took over.
	ErrFenced = errors.New("attempt is no longer current")
	// ErrOrder says that an event does not follow from the image's state; nothing was
	// written.
	ErrOrder = errors.New("event out of order")
	// ErrHandedOut says that a snapshot is its user's, and not the daemon's to remove.
	ErrHandedOut = errors.New("the snapshot was handed out")
	// ErrNewer says that the database was written by a newer version of the program.
	ErrNewer = errors.New("database is newer than this program")
)

// busyTimeout is how long a connection waits for another's lock (SC-3).
const busyTimeout = 5 * time.Second

// Store is one state directory's database. It is safe for concurrent use.
type Store struct {
	read    *sql.DB // SC-3: WAL, synchronous=NORMAL, 10 open and 5 idle connections
	journal *sql.DB // one connection with synchronous=FULL: a commit that returned survives a power cut
	path    string
	now     func() time.Time
}

// Open opens or creates the database at path and migrates it to the newest schema. One
// that is damaged is ErrDamaged and left as it is.
func Open(ctx context.Context, path string) (*Store, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err := check(ctx, path); err != nil {
		return nil, err
	}
	s := open(path, "rwc")
	if err := migratePatiently(ctx, s.journal); err != nil {
		return nil, errors.Join(fmt.Errorf("migrate %s: %w", path, err), s.Close())
	}
	return s, nil
}

// OpenExisting opens a database that must be there already, for commands that only look.
// It never migrates.
func OpenExisting(ctx context.Context, path string) (*Store, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("%w: no database at %s", ErrNotFound, path)
	}
	s := open(path, "rw")
	if err := checkVersion(ctx, s.read); err != nil {
		return nil, errors.Join(damaged(path, fmt.Errorf("%s: %w", path, err)), s.Close())
	}
	return s, nil
}

func open(path, mode string) *Store {
	read := sql.OpenDB(connector(dsn(path, mode, "NORMAL")))
	read.SetMaxOpenConns(10)
	read.SetMaxIdleConns(5)
	journal := sql.OpenDB(connector(dsn(path, mode, "FULL")))
	journal.SetMaxOpenConns(1)
	return &Store{read: read, journal: journal, path: path, now: time.Now}
}

// dsn carries every pragma that the driver knows, so that each connection of a pool has
// them (https://www.sqlite.org/pragma.html).
func dsn(path, mode, synchronous string) string {
	return fileURL(path, map[string]string{
		"mode":          mode,
		"_journal_mode": "WAL",
		"_synchronous":  synchronous,
		"_cache_size":   "-10000", // KiB: 10 MB
		"_busy_timeout": fmt.Sprint(busyTimeout.Milliseconds()),
		"_foreign_keys": "1",
		"_txlock":       "immediate",
	})
}

// fileURL names a database file to SQLite, whatever characters its path has.
func fileURL(path string, options map[string]string) string {
	q := url.Values{}
	for name, value := range options {
		q.Set(name, value)
	}
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}).String()
}

// Close closes the connections. It may be called twice.
func (s *Store) Close() error {
	return errors.Join(s.journal.Close(), s.read.Close())
}

// tx runs fn in one transaction of the journal connection; fn's error rolls back.
func (s *Store) tx(ctx context.Context, fn func(*sql.Tx) error) error {
	tx, err := s.journal.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer tx.Rollback()
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// Probe writes to the database without changing anything, as durably as an event.
func (s *Store) Probe(ctx context.Context) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, probe)
		return err
	})
}

// Busy tells whether err is SQLite's word that another connection held the lock for
// longer than the busy timeout.
func Busy(err error) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && (e.Code == sqlite3.ErrBusy || e.Code == sqlite3.ErrLocked)
}

// Unwritable tells whether err means that the database cannot be written until an
// operator acts: disk full, I/O error, read-only file system, or a damaged file.
func Unwritable(err error) bool {
	var e sqlite3.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case sqlite3.ErrFull, sqlite3.ErrIoErr, sqlite3.ErrReadonly, sqlite3.ErrCorrupt, sqlite3.ErrNotADB,
		sqlite3.ErrCantOpen:
		return true
	}
	return false
}

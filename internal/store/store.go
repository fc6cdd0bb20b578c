// Package store keeps the journal of every image in SQLite, and tables derived from it.
//
// The state of an image is the fold of its events and nothing else: see Fold. The tables
// images, devices and snapshots change in the same transaction as the event behind the
// change. They can be read instead of the journal, because they never differ from it.
//
// Exported methods open the transaction, unexported functions take it. No transaction
// spans a system call outside SQLite.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/mattn/go-sqlite3" // registers the driver "sqlite3"
)

var (
	// ErrNotFound is returned when the database has no such row.
	ErrNotFound = errors.New("not found in the journal")
	// ErrFenced is returned when an attempt wants to write but is no longer the image's
	// current one: somebody else took over.
	ErrFenced = errors.New("attempt is no longer current")
	// ErrOrder is returned when an event does not follow from the image's state. Nothing
	// was written.
	ErrOrder = errors.New("event out of order")
	// ErrHandedOut is returned when a snapshot belongs to its user. The daemon must not
	// remove it.
	ErrHandedOut = errors.New("the snapshot was handed out")
	// ErrNewer is returned when a newer version of the program wrote the database.
	ErrNewer = errors.New("a newer version of the program wrote the database")
)

// changeNothing writes the row of the pool as it is.
const changeNothing = `UPDATE pool SET state = state`

// Store is the database of one state directory. It is safe for concurrent use.
type Store struct {
	// readDB is the pool of SC-3: WAL, synchronous=NORMAL, 10 open and 5 idle
	// connections.
	readDB *sql.DB
	// writeDB is one connection. Each transaction sets how durable it is.
	writeDB *sql.DB
	path    string
	now     func() time.Time

	readOnly bool // nothing can be written

	// Observe is called after each write transaction with the time it took, waiting for
	// the lock included, whether the commit waited for the disk, and its error. It may be
	// nil, and is set before the first use.
	Observe func(took time.Duration, synced bool, err error)
}

// Open opens or creates the database at path and migrates it to the newest schema. It
// returns ErrCorrupt for a damaged file, and leaves the file as it is.
func Open(ctx context.Context, path string) (*Store, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err := checkFile(ctx, path); err != nil {
		return nil, err
	}
	if err := makeFile(path); err != nil {
		return nil, err
	}
	s := open(path, "rwc")
	if err := migratePatiently(ctx, s.writeDB); err != nil {
		return nil, errors.Join(fmt.Errorf("migrate %s: %w", path, err), s.Close())
	}
	return s, nil
}

// makeFile makes the file of the database if there is none: SQLite would let others read
// it. Its other files get the same mode.
func makeFile(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("database: %w", err)
	}
	return f.Close()
}

// OpenExisting opens an existing database, for commands that show its content. It never
// migrates. It returns ErrNotFound if there is no file at path, and fs.ErrPermission for
// a file of somebody else.
func OpenExisting(ctx context.Context, path string) (*Store, error) {
	if err := checkReadable(path); err != nil {
		return nil, err
	}
	s := open(path, "rw")
	if err := checkVersion(ctx, s.readDB); err != nil {
		return nil, errors.Join(asCorrupt(path, fmt.Errorf("%s: %w", path, err)), s.Close())
	}
	return s, nil
}

func open(path, mode string) *Store {
	readDB := sql.OpenDB(connector(dsn(path, mode, string(ordered))))
	readDB.SetMaxOpenConns(10)
	readDB.SetMaxIdleConns(5)
	writeDB := sql.OpenDB(connector(dsn(path, mode, string(synced))))
	writeDB.SetMaxOpenConns(1)
	return &Store{readDB: readDB, writeDB: writeDB, path: path, now: time.Now}
}

// Close closes the connections. It may be called twice.
func (s *Store) Close() error {
	return errors.Join(s.writeDB.Close(), s.readDB.Close())
}

// inTx runs fn in one transaction of the write connection. An error of fn rolls back. A
// commit survives a power cut as soon as it has returned.
func (s *Store) inTx(ctx context.Context, fn func(transaction) error) error {
	return s.inTxAs(ctx, synced, fn)
}

// inTxAs is inTx for a transaction that may be less durable. The connection may have been
// used for another kind, so each asks for its own.
func (s *Store) inTxAs(ctx context.Context, as durability, fn func(transaction) error) (err error) {
	conn, err := s.writeDB.Conn(ctx)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	tx := transaction{conn}
	// SQLite obeys this pragma when it is prepared. What the driver prepares for a call
	// that has no arguments and cannot be cancelled, it does not keep for the next.
	if _, err := tx.ExecContext(ctx, durabilityPragma+string(as)); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	if _, err := tx.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	committed := false
	defer func() {
		if !committed {
			tx.rollback(ctx)
		}
	}()
	if err := fn(tx); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "COMMIT"); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	committed = true
	return nil
}

// Probe writes to the database as durably as an event does, and changes nothing.
func (s *Store) Probe(ctx context.Context) error {
	return s.inTx(ctx, func(tx transaction) error {
		_, err := tx.ExecContext(ctx, changeNothing)
		return err
	})
}

// Busy reports whether another connection held the lock for longer than the busy timeout.
func Busy(err error) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && (e.Code == sqlite3.ErrBusy || e.Code == sqlite3.ErrLocked)
}

// Unwritable reports whether the database cannot be written until an operator acts: disk
// full, I/O error, read-only file system, or a damaged file.
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

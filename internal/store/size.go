package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/mattn/go-sqlite3"
)

// What the database takes on disk. Its log (https://www.sqlite.org/wal.html) grows as
// long as a reader looks at an old state, and keeps its size afterwards: SQLite writes it
// anew from the start, and shortens it when it is told to.

// logLimit is how long the log may be when it is begun anew: about the size at which
// SQLite brings it into the database by itself.
const logLimit = 4 << 20

const (
	// walLimit is bytes: https://www.sqlite.org/pragma.html#pragma_journal_size_limit
	walLimit    = "PRAGMA journal_size_limit = %d"
	walPatience = "PRAGMA busy_timeout = %d" // ms
	walTruncate = "PRAGMA wal_checkpoint(TRUNCATE)"

	// Events are numbered from 1 on, and none is ever deleted: the highest number counts
	// them.
	sizeSelect = `SELECT (SELECT count(*) FROM images), (SELECT ifnull(max(seq), 0) FROM events),
		(SELECT count(*) FROM devices), (SELECT count(*) FROM quarantine)`
)

// connector opens connections with the pragma that has no place in a DSN.
type connector string

// Connect implements driver.Connector.
func (c connector) Connect(context.Context) (driver.Conn, error) { return c.Driver().Open(string(c)) }

// Driver implements driver.Connector.
func (connector) Driver() driver.Driver {
	return &sqlite3.SQLiteDriver{ConnectHook: func(conn *sqlite3.SQLiteConn) error {
		_, err := conn.Exec(fmt.Sprintf(walLimit, logLimit), nil)
		return err
	}}
}

// EmptyLog brings the log into the database and makes it empty. It does not wait for
// readers: while there is one that needs the log, it is left as it is, without an error.
func (s *Store) EmptyLog(ctx context.Context) (err error) {
	info, err := os.Stat(s.path + "-wal")
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	conn, err := s.read.Conn(ctx)
	if err != nil {
		return fmt.Errorf("empty the log: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if _, err := conn.ExecContext(ctx, fmt.Sprintf(walPatience, 0)); err != nil {
		return fmt.Errorf("empty the log: %w", err)
	}
	defer func() {
		_, back := conn.ExecContext(context.WithoutCancel(ctx), fmt.Sprintf(walPatience, busyTimeout.Milliseconds()))
		err = errors.Join(err, back)
	}()
	var busy, pages, moved int
	if err := conn.QueryRowContext(ctx, walTruncate).Scan(&busy, &pages, &moved); err != nil && !Busy(err) {
		return fmt.Errorf("empty the log: %w", err)
	}
	return nil
}

// Size is what the database has and takes.
type Size struct {
	Images, Events, Devices, Quarantined int64 // rows
	Bytes, LogBytes                      int64 // of the files
}

// Size measures the database. It is cheap.
func (s *Store) Size(ctx context.Context) (size Size, err error) {
	err = s.read.QueryRowContext(ctx, sizeSelect).Scan(&size.Images, &size.Events, &size.Devices, &size.Quarantined)
	if err != nil {
		return size, fmt.Errorf("measure the database: %w", err)
	}
	for path, bytes := range map[string]*int64{s.path: &size.Bytes, s.path + "-wal": &size.LogBytes} {
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return size, err
		}
		*bytes = info.Size()
	}
	return size, nil
}

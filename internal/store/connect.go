package store

import (
	"context"
	"database/sql/driver"
	"fmt"
	"net/url"
	"time"

	"github.com/mattn/go-sqlite3"
)

// busyTimeout is how long a connection waits for the lock of another one (SC-3).
const busyTimeout = 5 * time.Second

// keptStatements is how many statements a connection keeps. All that are used for a
// message and for an image fit in, and it does not matter if a command's do not.
const keptStatements = 64

const (
	// walLimit is the size in bytes to which SQLite truncates the WAL file when it
	// restarts it. It is about the size at which SQLite checkpoints by itself.
	walLimit = 4 << 20

	// https://www.sqlite.org/pragma.html#pragma_journal_size_limit
	walLimitPragma    = "PRAGMA journal_size_limit = %d" // bytes
	busyTimeoutPragma = "PRAGMA busy_timeout = %d"       // ms
)

// durability says when a transaction is on disk.
type durability string

// The values are those of https://www.sqlite.org/pragma.html#pragma_synchronous.
const (
	// synced is on disk, with all transactions before it, when the commit returns.
	synced durability = "FULL"
	// ordered is in order, and survives the end of the process. A power cut may take it,
	// with all that came after it, until the next synced transaction.
	ordered durability = "NORMAL"

	durabilityPragma = "PRAGMA synchronous = "
)

// immutable is a mode of dsn: read-only, and without lock, WAL and shared memory
// (https://www.sqlite.org/uri.html#uriimmutable).
const immutable = "immutable"

// dsn carries every pragma that the driver knows, so each connection of a pool has them
// (https://www.sqlite.org/pragma.html).
func dsn(path, mode, synchronous string) string {
	options := map[string]string{
		"mode":          mode,
		"_journal_mode": "WAL",
		"_synchronous":  synchronous,
		"_cache_size":   "-10000", // KiB: 10 MB
		"_busy_timeout": fmt.Sprint(busyTimeout.Milliseconds()),
		"_foreign_keys": "1",
		"_txlock":       "immediate",
		// Each connection keeps the statements that it has prepared.
		"_stmt_cache_size": fmt.Sprint(keptStatements),
	}
	if mode == immutable {
		options["mode"], options["immutable"] = "ro", "1"
	}
	return fileURL(path, options)
}

// fileURL names a database file to SQLite. The path may contain any characters.
func fileURL(path string, options map[string]string) string {
	q := url.Values{}
	for name, value := range options {
		q.Set(name, value)
	}
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}).String()
}

// connector opens the connections of a DSN, and sets the one pragma that a DSN cannot
// hold.
type connector string

// Connect implements driver.Connector.
func (c connector) Connect(context.Context) (driver.Conn, error) { return c.Driver().Open(string(c)) }

// Driver implements driver.Connector.
func (connector) Driver() driver.Driver {
	return &sqlite3.SQLiteDriver{ConnectHook: func(conn *sqlite3.SQLiteConn) error {
		_, err := conn.Exec(fmt.Sprintf(walLimitPragma, walLimit), nil)
		return err
	}}
}

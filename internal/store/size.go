package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// The WAL file (https://www.sqlite.org/wal.html) grows as long as a reader holds an old
// snapshot of the database, and it keeps its size afterwards. SQLite overwrites it from
// the start, and truncates it on request.

const (
	truncatePragma = "PRAGMA wal_checkpoint(TRUNCATE)"

	// Events are numbered from 1 and never deleted, so the highest number is their count.
	sizeSelect = `SELECT (SELECT ifnull(sum(n), 0) FROM counts WHERE name = 'images'),
		(SELECT ifnull(max(seq), 0) FROM events), (SELECT n FROM counts WHERE name = 'devices'),
		(SELECT count(*) FROM quarantine)`
)

// TruncateWAL moves the content of the WAL into the database and empties the file. It
// does not wait for readers: if one still needs the WAL, it leaves the file as it is and
// returns no error.
func (s *Store) TruncateWAL(ctx context.Context) (err error) {
	info, err := os.Stat(s.path + "-wal")
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	conn, err := s.readDB.Conn(ctx)
	if err != nil {
		return fmt.Errorf("truncate the WAL: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if _, err := conn.ExecContext(ctx, fmt.Sprintf(busyTimeoutPragma, 0)); err != nil {
		return fmt.Errorf("truncate the WAL: %w", err)
	}
	defer func() {
		reset := fmt.Sprintf(busyTimeoutPragma, busyTimeout.Milliseconds())
		_, failed := conn.ExecContext(context.WithoutCancel(ctx), reset)
		err = errors.Join(err, failed)
	}()
	var busy, pages, moved int
	if err := conn.QueryRowContext(ctx, truncatePragma).Scan(&busy, &pages, &moved); err != nil && !Busy(err) {
		return fmt.Errorf("truncate the WAL: %w", err)
	}
	return nil
}

// Size is the number of rows in the database and the size of its files.
type Size struct {
	Images, Events, Devices, Quarantined int64 // rows
	Bytes, WALBytes                      int64 // of the files
}

// Size measures the database. It is cheap.
func (s *Store) Size(ctx context.Context) (size Size, err error) {
	err = s.readDB.QueryRowContext(ctx, sizeSelect).Scan(&size.Images, &size.Events, &size.Devices, &size.Quarantined)
	if err != nil {
		return size, fmt.Errorf("measure the database: %w", err)
	}
	for path, bytes := range map[string]*int64{s.path: &size.Bytes, s.path + "-wal": &size.WALBytes} {
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

package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

const nothingRecorded = `SELECT NOT EXISTS (
	SELECT 1 FROM pool UNION ALL SELECT 1 FROM images UNION ALL SELECT 1 FROM quarantine)`

// imagesNamed finds images by what their key or their id begins with.
const imagesNamed = imageSelect + ` WHERE substr(key, 1, length(?1)) = ?1 OR substr(id, 1, length(?1)) = ?1
	ORDER BY id DESC LIMIT ?2`

// OpenReadOnly opens an existing database for a look that writes nothing, not even the
// files that SQLite keeps beside it. While nobody has it open, it is read as it lies, and
// without a lock: whoever begins to write meanwhile can make the reader see half a
// change. Its errors are those of OpenExisting.
func OpenReadOnly(ctx context.Context, path string) (*Store, error) {
	if err := checkReadable(path); err != nil {
		return nil, err
	}
	mode := "ro"
	if _, err := os.Stat(path + "-wal"); errors.Is(err, fs.ErrNotExist) {
		mode = immutable
	}
	s := open(path, mode)
	s.readOnly = true
	if err := checkVersion(ctx, s.readDB); err != nil {
		return nil, errors.Join(asCorrupt(path, fmt.Errorf("%s: %w", path, err)), s.Close())
	}
	return s, nil
}

// OpenToLook is OpenExisting for a command that only reads: if the database cannot be
// written to, as on a read-only file system, it is OpenReadOnly.
func OpenToLook(ctx context.Context, path string) (*Store, error) {
	s, err := OpenExisting(ctx, path)
	if Unwritable(err) && !Corrupt(err) {
		return OpenReadOnly(ctx, path)
	}
	return s, err
}

// ReadOnly reports whether nothing can be written, not even beside the database.
func (s *Store) ReadOnly() bool { return s.readOnly }

// checkReadable tells a database that is not there from one of somebody else: SQLite has
// one error for both.
func checkReadable(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: no database at %s", ErrNotFound, path)
	}
	if err != nil {
		return fmt.Errorf("database: %w", err)
	}
	return f.Close()
}

// Empty reports whether nothing is recorded: neither a pool nor an image nor a message.
func (s *Store) Empty(ctx context.Context) (bool, error) {
	empty, err := queryBool(ctx, s.readDB, nothingRecorded)
	if err != nil {
		return false, fmt.Errorf("look for what is recorded: %w", err)
	}
	return empty, nil
}

// Named returns the newest images whose key or id begins with the text, newest first and
// at most so many.
func (s *Store) Named(ctx context.Context, begin string, most int) ([]Image, error) {
	return queryImages(ctx, s.readDB, imagesNamed, begin, most)
}

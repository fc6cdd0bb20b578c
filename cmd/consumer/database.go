package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
)

var (
	// errNoDatabase is returned when the state directory has no database.
	errNoDatabase = errors.New("there is no database")
	// errDatabaseLost is returned when the state directory has a pool, and no database
	// that knows it.
	errDatabaseLost = errors.New("the database is lost")
	// errNotPermitted is returned when the user may not read the state directory.
	errNotPermitted = errors.New("permission denied: run the command as root")
)

// databasePath is where a state directory keeps its journal.
func databasePath(stateDir string) string { return filepath.Join(stateDir, "consumer.db") }

// checkDatabase returns errNoDatabase or errDatabaseLost if there is no database, and
// errNotPermitted if that cannot be seen.
func (c config) checkDatabase() error {
	_, err := os.Stat(databasePath(c.StateDir))
	return c.withoutDatabase(err)
}

// withoutDatabase says what to do about a database that is not there or cannot be read.
// Another error is returned as it is.
func (c config) withoutDatabase(err error) error {
	path := databasePath(c.StateDir)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: %w", path, errNotPermitted)
	case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, store.ErrNotFound):
		return err
	case c.hasPool():
		return fmt.Errorf("%w: %s is not there: %s", errDatabaseLost, path, c.bringBack())
	}
	return fmt.Errorf("%w at %s: is --state-dir right? `consumer pool create` makes a new pool and its database; "+
		"`consumer recover` makes the database of a pool that is there", errNoDatabase, path)
}

// hasPool reports whether a pool is where `consumer pool create` makes it in the state
// directory.
func (c config) hasPool() bool {
	used, err := devmapper.HasSuperblock(filepath.Join(c.StateDir, "pool", "metadata.img"))
	return err == nil && used
}

// bringBack is the way out without the database of a pool.
func (c config) bringBack() string {
	return fmt.Sprintf("%s holds a pool. Put the newest `consumer backup` there as consumer.db; without one, rebuild "+
		"the database with `consumer recover`", filepath.Join(c.StateDir, "pool"))
}

// noPool is the error of a database without a pool.
func (c config) noPool() error {
	if c.hasPool() {
		return fmt.Errorf("%w: %s is empty: %s", errDatabaseLost, databasePath(c.StateDir), c.bringBack())
	}
	return errNoPool
}

// openMigrated opens an existing database, and migrates it to the newest schema.
func openMigrated(ctx context.Context, path string) (*store.Store, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	return store.Open(ctx, path)
}

// removeDatabase removes a database and what belongs to it.
func removeDatabase(path string) error {
	var errs []error
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(path + suffix); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// isEmptyDatabase reports whether there is a sound database in which nothing is recorded.
func isEmptyDatabase(ctx context.Context, path string) bool {
	st, err := store.OpenReadOnly(ctx, path)
	if err != nil {
		return false
	}
	empty, err := st.Empty(ctx)
	return errors.Join(err, st.Close()) == nil && empty
}

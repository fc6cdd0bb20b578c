// Package durable makes names survive a power cut. fsync(2) of a file saves what is in
// it, not its name: that is in its directory, which needs an fsync of its own. Source:
// fsync(2), "Description".
package durable

import (
	"errors"
	"os"
	"path/filepath"
)

// SyncDir makes the names in a directory durable: those made, renamed and removed.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Rename gives a file another name on the same file system, durably. The file's content
// must have been synced before. After an error of the sync both names are possible after
// a power cut.
func Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	dirs := []string{filepath.Dir(to)}
	if dir := filepath.Dir(from); dir != dirs[0] {
		dirs = append(dirs, dir)
	}
	var errs []error
	for _, dir := range dirs {
		errs = append(errs, SyncDir(dir))
	}
	return errors.Join(errs...)
}

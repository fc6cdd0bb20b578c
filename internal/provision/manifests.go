package provision

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"imagemanager.internal/internal/archive/fstree"
	"imagemanager.internal/internal/durable"
	"imagemanager.internal/internal/failpoint"
	"imagemanager.internal/internal/store"
)

// Manifests is the directory with the manifest of every sealed tree, each under its
// digest. Verify names differences with their help.
type Manifests struct {
	dir   string
	store *store.Store
}

// Name returns the file name of the manifest with the digest.
func (m *Manifests) Name(digest string) string { return strings.TrimPrefix(digest, "sha256:") }

func (m *Manifests) path(digest string) string { return filepath.Join(m.dir, m.Name(digest)) }

// Save keeps what a device should hold, before the seal is recorded.
func (m *Manifests) Save(tree *fstree.Inventory) (err error) {
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(m.dir, "*.part")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = tree.WriteTo(f)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	failpoint.Here("before", "rename", "manifest")
	return durable.Rename(f.Name(), m.path(tree.Digest()))
}

// lock keeps removers of manifests out (LOCK_SH), from before one is written until the
// seal with its digest is recorded; or writers (LOCK_EX). It works between processes, and
// the kernel unlocks for a dead one. Without a directory it is fs.ErrNotExist.
func (m *Manifests) lock(how int) (unlock func(), err error) {
	dir, err := os.Open(m.dir)
	if err != nil {
		return nil, err
	}
	for {
		switch err := syscall.Flock(int(dir.Fd()), how); {
		case err == nil:
			return func() { dir.Close() }, nil
		case !errors.Is(err, syscall.EINTR):
			dir.Close()
			return nil, fmt.Errorf("lock %s: %w", dir.Name(), err)
		}
	}
}

// saveUntil saves a manifest and keeps removers out until record has recorded the seal.
func (m *Manifests) saveUntil(tree *fstree.Inventory, record func() error) error {
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return err
	}
	unlock, err := m.lock(syscall.LOCK_SH)
	if err != nil {
		return err
	}
	defer unlock()
	if err := m.Save(tree); err != nil {
		return err
	}
	return record()
}

// RemovePartial removes what a killed Save left.
func (m *Manifests) RemovePartial() error {
	parts, err := filepath.Glob(filepath.Join(m.dir, "*.part"))
	for _, part := range parts {
		err = errors.Join(err, os.Remove(part))
	}
	return err
}

// load returns the manifest with the digest. A file with another digest is ErrResultLost.
func (m *Manifests) load(digest string) (*fstree.Inventory, error) {
	f, err := os.Open(m.path(digest))
	if err != nil {
		return nil, fmt.Errorf("%w: manifest: %w", ErrResultLost, err)
	}
	defer f.Close()
	tree, err := fstree.ReadInventory(f)
	if err != nil || tree.Digest() != digest {
		return nil, errors.Join(fmt.Errorf("%w: manifest %s is damaged", ErrResultLost, f.Name()), err)
	}
	return tree, nil
}

// differences compares a tree with the manifest of its seal.
func (m *Manifests) differences(digest string, found *fstree.Inventory) []string {
	sealed, err := m.load(digest)
	if err != nil {
		return []string{"the digest differs; what differs cannot be named: " + err.Error()}
	}
	const most = 100
	return sealed.Diff(found, most)
}

// List lists the directory at a moment when no manifest waits for its seal. Without a
// directory it is fs.ErrNotExist.
func (m *Manifests) List() ([]string, error) {
	unlock, err := m.lock(syscall.LOCK_EX)
	if err != nil {
		return nil, err
	}
	defer unlock()
	entries, err := os.ReadDir(m.dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// Remove removes a manifest, or a temporary file, unless an image refers to it.
func (m *Manifests) Remove(ctx context.Context, name string) error {
	unlock, err := m.lock(syscall.LOCK_EX)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	used, err := m.store.TreeInUse(ctx, "sha256:"+name)
	if err != nil || used {
		return err
	}
	if err := os.Remove(filepath.Join(m.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

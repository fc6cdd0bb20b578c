package download

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"imagemanager.internal/internal/durable"
)

// Check checks that the file is still the blob. The same size, inode and modification
// time count as proof. If inode or time differ (a restored backup, a copied directory),
// the file is hashed again, and the blob is returned with the file's present inode and
// time. Not promised: bytes that rot on disk under unchanged metadata are not noticed
// here.
//
// Errors are ErrMissing, ErrCorrupt, the cause of ctx, and errno.
func (d *Downloader) Check(ctx context.Context, b Blob) (Blob, error) {
	// Lstat: neither a link nor a FIFO is a blob, only a regular file.
	info, err := os.Lstat(b.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Blob{}, fmt.Errorf("%w: %w", ErrMissing, err)
	case err != nil:
		return Blob{}, err
	case !info.Mode().IsRegular():
		return Blob{}, fmt.Errorf("%w: %s is not a regular file", ErrCorrupt, b.Path)
	case info.Size() != b.Size:
		return Blob{}, fmt.Errorf("%w: %s has %d bytes, recorded are %d", ErrCorrupt, b.Path, info.Size(), b.Size)
	case inode(info) == b.Inode && info.ModTime().Equal(b.ModTime):
		return b, nil
	}
	sum, err := hashFile(ctx, b.Path, info)
	if err != nil {
		return Blob{}, err
	}
	if sum != b.SHA256 {
		return Blob{}, fmt.Errorf("%w: SHA-256 of %s is %s, recorded is %s", ErrCorrupt, b.Path, sum, b.SHA256)
	}
	b.Inode, b.ModTime = inode(info), info.ModTime()
	return b, nil
}

// Verify hashes the file and compares its SHA-256, whatever its inode and time.
//
// Errors are those of Check.
func (d *Downloader) Verify(ctx context.Context, b Blob) error {
	info, err := os.Lstat(b.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %w", ErrMissing, err)
	case err != nil:
		return err
	case !info.Mode().IsRegular() || info.Size() != b.Size:
		return fmt.Errorf("%w: %s is not a file of %d bytes", ErrCorrupt, b.Path, b.Size)
	}
	sum, err := hashFile(ctx, b.Path, info)
	if err == nil && sum != b.SHA256 {
		err = fmt.Errorf("%w: SHA-256 of %s is %s, recorded is %s", ErrCorrupt, b.Path, sum, b.SHA256)
	}
	return err
}

// hashFile returns the SHA-256 of the file described by info, in hex. It stops when ctx
// ends. The file may have been replaced: so it is opened without following a link or
// waiting for a FIFO's writer, and compared with info.
func hashFile(ctx context.Context, path string, info fs.FileInfo) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if opened, err := f.Stat(); err != nil || !os.SameFile(opened, info) {
		return "", errors.Join(fmt.Errorf("%w: %s was replaced while it was checked", ErrCorrupt, path), err)
	}
	hash, buf := sha256.New(), make([]byte, bufferSize)
	for ctx.Err() == nil {
		n, err := f.Read(buf)
		hash.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			return hexOf(hash), nil
		}
		if err != nil {
			return "", err
		}
	}
	return "", context.Cause(ctx)
}

// Remove durably removes the blob, its temporary file and its saved progress. It may be
// called at any time, even if none of them exists. It accepts the names returned by List.
// An error keeps its errno.
func (d *Downloader) Remove(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	path := filepath.Join(d.cfg.Dir, name)
	if base, temp := strings.CutSuffix(path, tempSuffix); temp {
		if err := removeTemp(base + tempSuffix); err != nil {
			return err
		}
	}
	if err := removeTemp(path + tempSuffix); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return durable.SyncDir(d.cfg.Dir)
}

// List returns the names of all files in the directory, sorted. Temporary files have the
// suffix ".part". A saved progress is listed under the name of its temporary file.
func (d *Downloader) List() ([]string, error) {
	entries, err := os.ReadDir(d.cfg.Dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		name := e.Name()
		if base, ok := strings.CutSuffix(name, tempSuffix+stateSuffix); ok {
			name = base + tempSuffix
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// checkName refuses anything but the plain name of a file in the directory.
func checkName(name string) error {
	if name == "" || name == "." || !filepath.IsLocal(name) || filepath.Base(name) != name {
		return fmt.Errorf("blob name %q: %w", name, fs.ErrInvalid)
	}
	return nil
}

// Path returns the path of the blob of that name, whether or not it exists.
func (d *Downloader) Path(name string) string { return filepath.Join(d.cfg.Dir, name) }

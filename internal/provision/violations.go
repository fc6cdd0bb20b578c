package provision

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"imagemanager.internal/internal/durable"
	"imagemanager.internal/internal/store"
)

// Discard removes everything made for an image, after it is refused or given up. What was
// handed out stays. A failure is logged: the next reconcile finishes it.
func (h *Host) Discard(ctx context.Context, t *Task) {
	err := h.Devices.destroyMatching(ctx, t.Image.ID, func(d store.Device) bool { return !HandedOut(d) })
	if err := errors.Join(err, h.DiscardArchive(t.Image)); err != nil {
		h.record.Log(t).Error().Err(err).Msg("clean-up incomplete; the next reconcile finishes it")
	}
}

// DiscardArchive removes a refused image's archive. After an attack the archive is set
// aside, under its SHA-256, for whoever looks into it.
func (h *Host) DiscardArchive(img store.Image) error {
	var err error
	if img.State == store.StateViolation && img.Blob != nil {
		err = h.setAside(*img.Blob)
	}
	return errors.Join(err, h.archives.Remove(ArchiveName(img.ID)))
}

// setAside moves an archive into the directory of violations. Within its limit the oldest
// make room. It may be called again at any time.
func (h *Host) setAside(b store.Blob) error {
	if b.Size > h.cfg.ViolationBytes {
		return nil
	}
	if _, err := os.Stat(b.Path); errors.Is(err, fs.ErrNotExist) {
		return nil // done before; to make room again would push out another one
	}
	if err := os.MkdirAll(h.cfg.ViolationDir, 0o700); err != nil {
		return err
	}
	if err := makeRoom(h.cfg.ViolationDir, b.Size, h.cfg.ViolationBytes); err != nil {
		return err
	}
	err := durable.Rename(b.Path, filepath.Join(h.cfg.ViolationDir, b.SHA256+".tar"))
	if errors.Is(err, fs.ErrNotExist) { // another caller did it meanwhile
		return nil
	}
	return err
}

// makeRoom removes the oldest files of a directory until they and size more bytes are
// within the limit.
func makeRoom(dir string, size, limit int64) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var files []fs.FileInfo
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return err
		}
		files = append(files, info)
		size += info.Size()
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for ; size > limit && len(files) > 0; files = files[1:] {
		if err := os.Remove(filepath.Join(dir, files[0].Name())); err != nil {
			return err
		}
		size -= files[0].Size()
	}
	return nil
}

package provision

import (
	"context"
	"fmt"
	"syscall"

	"imagemanager.internal/internal/awstrace"
	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/span"
	"imagemanager.internal/internal/store"
)

// ArchiveName returns the name of an image's archive in the archive directory.
func ArchiveName(image int64) string { return fmt.Sprintf("%d.tar", image) }

// Download fetches the object into the archive directory.
func (h *Host) Download(ctx context.Context, t *Task) error {
	o := t.Image.Object
	if err := download.ValidateKey(o.Key, h.cfg.Prefix); err != nil {
		return err
	}
	missing := missingBytes(h.archives.Path(ArchiveName(t.Image.ID))+".part", t.Image.Size)
	release, err := h.space.reserve(ctx, need{dir: h.cfg.StateDir, disk: missing})
	if err != nil {
		return err
	}
	defer release()
	ctx, summed := awstrace.Summed(ctx)
	defer summed()
	var report func(int64)
	blob, err := h.archives.Fetch(ctx, ArchiveName(t.Image.ID), download.Object{
		Bucket: o.Bucket, Key: o.Key, VersionID: o.VersionID, ETag: o.ETag, Size: o.Size,
	}, func(done, total int64) {
		if report == nil {
			report = h.record.progress(t, total)
		}
		report(done)
	})
	if err != nil {
		return err
	}
	_, committed := span.Start(ctx, spanCommit)
	img, err := h.store.FinishDownload(ctx, t.Attempt, BlobOf(blob))
	committed(err)
	if err != nil {
		return err
	}
	h.mu.Lock()
	h.fetched[img.ID] = BlobOf(blob)
	h.mu.Unlock()
	h.record.done(t, img).Int64("bytes", blob.Size).Str("sha256", blob.SHA256).Msg("downloaded")
	return nil
}

// missingBytes estimates how many of an archive's bytes are not in its partial file yet.
func missingBytes(part string, size int64) int64 {
	var at syscall.Stat_t
	if err := syscall.Stat(part, &at); err != nil {
		return size
	}
	return max(0, size-at.Blocks*512)
}

// UndoDownload has nothing to remove. The next attempt continues from what a failed one
// left, and overwrites a complete archive unknown to the journal. When there is
// no next attempt, Discard removes both.
func (h *Host) UndoDownload(context.Context, *Task) error { return nil }

// CheckDownload checks the archive's size and, if its inode or modification time changed,
// its SHA-256. An unpacked image needs no archive any more.
func (h *Host) CheckDownload(ctx context.Context, t *Task) error {
	if t.Image.Stage == store.StageActivate && h.CheckUnpack(ctx, t) == nil {
		return nil
	}
	b := t.Image.Blob
	if b == nil {
		return fmt.Errorf("%w: no archive recorded", ErrResultLost)
	}
	_, err := h.archives.Check(ctx,
		download.Blob{Path: b.Path, SHA256: b.SHA256, Size: b.Size, Inode: b.Inode, ModTime: b.ModTime})
	return err
}

// Forget drops what this process remembers of an image, once it has ended.
func (h *Host) Forget(image int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.fetched, image)
}

// hashedHere reports whether this process wrote the archive, and hashed it meanwhile.
func (h *Host) hashedHere(image int64, b store.Blob) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	f, found := h.fetched[image]
	return found && f.SHA256 == b.SHA256 && f.Inode == b.Inode && f.ModTime.Equal(b.ModTime)
}

// BlobOf returns the journal's form of a downloaded archive.
func BlobOf(b download.Blob) store.Blob {
	return store.Blob{Path: b.Path, SHA256: b.SHA256, Size: b.Size, Inode: b.Inode, ModTime: b.ModTime}
}

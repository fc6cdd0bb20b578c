package pipeline

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/store"
)

// blobName names an image's archive in the blob directory.
func blobName(image int64) string { return fmt.Sprintf("%d.tar", image) }

// download fetches the object into the blob directory.
func (p *Pipeline) download(ctx context.Context, job *Job) error {
	began, o := time.Now(), job.image.Object
	if err := download.ValidateKey(o.Key, p.cfg.Prefix); err != nil {
		return err
	}
	release, err := p.reserve(ctx, need{dir: p.cfg.StateDir, disk: p.missing(job)})
	if err != nil {
		return err
	}
	defer release()
	var report func(int64)
	blob, err := p.Downloader.Fetch(ctx, blobName(job.image.ID), download.Object{
		Bucket: o.Bucket, Key: o.Key, VersionID: o.VersionID, ETag: o.ETag, Size: o.Size,
	}, func(done, total int64) {
		if report == nil {
			report = p.progress(job, total)
		}
		report(done)
	})
	if err != nil {
		return err
	}
	img, err := p.Store.Downloaded(ctx, job.attempt, recordOf(blob))
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.fetched[img.ID] = recordOf(blob)
	p.mu.Unlock()
	p.ended(job, img, began).Int64("bytes", blob.Size).Str("sha256", blob.SHA256).Msg("downloaded")
	return nil
}

// missing is how many bytes of the archive are not on disk yet, as far as that is known.
func (p *Pipeline) missing(job *Job) int64 {
	var there syscall.Stat_t
	if err := syscall.Stat(p.Downloader.Path(blobName(job.image.ID))+".part", &there); err != nil {
		return job.image.Size
	}
	return max(0, job.image.Size-there.Blocks*512)
}

// undoDownload has nothing to remove: what Fetch leaves after a failure is what the next
// attempt continues from, and a complete archive that the journal does not know is
// overwritten by it. When there is no next attempt, discard removes both.
func (p *Pipeline) undoDownload(context.Context, *Job) error { return nil }

// blobHolds checks the archive's size and, if its inode or modification time changed, its
// SHA-256. An image that is unpacked goes on to its end without one.
func (p *Pipeline) blobHolds(ctx context.Context, job *Job) error {
	if job.image.Stage == store.StageActivate && p.deviceHolds(ctx, job) == nil {
		return nil
	}
	b := job.image.Blob
	if b == nil {
		return fmt.Errorf("%w: no archive recorded", errLost)
	}
	_, err := p.Downloader.Check(ctx,
		download.Blob{Path: b.Path, SHA256: b.SHA256, Size: b.Size, Inode: b.Inode, ModTime: b.ModTime})
	return err
}

func recordOf(b download.Blob) store.Blob {
	return store.Blob{Path: b.Path, SHA256: b.SHA256, Size: b.Size, Inode: b.Inode, ModTime: b.ModTime}
}

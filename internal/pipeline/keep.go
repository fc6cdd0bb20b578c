package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/failpoint"
	"imagemanager.internal/internal/store"
)

// Two things are kept beside devices and archives: the manifest of every sealed tree, under its digest, so that Verify can name what
// differs; and the archives that were refused as attacks, under their SHA-256, for whoever looks into them.

// saveManifest keeps what a device should hold, before the seal that refers to it.
func (p *Pipeline) saveManifest(m *archive.Manifest) (err error) {
	if err := os.MkdirAll(p.cfg.ManifestDir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(p.cfg.ManifestDir, "*.part")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = m.WriteTo(f)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	failpoint.Here("before", "rename", "manifest")
	if err := os.Rename(f.Name(), p.manifestPath(m.Digest())); err != nil {
		return err
	}
	return syncDir(p.cfg.ManifestDir)
}

// removePartialManifests removes what a saveManifest left that was killed.
func (p *Pipeline) removePartialManifests() error {
	parts, err := filepath.Glob(filepath.Join(p.cfg.ManifestDir, "*.part"))
	for _, part := range parts {
		err = errors.Join(err, os.Remove(part))
	}
	return err
}

func (p *Pipeline) manifestPath(digest string) string {
	return filepath.Join(p.cfg.ManifestDir, strings.TrimPrefix(digest, "sha256:"))
}

// loadManifest returns the manifest with the digest; one that has another digest by now is errLost.
func (p *Pipeline) loadManifest(digest string) (*archive.Manifest, error) {
	f, err := os.Open(p.manifestPath(digest))
	if err != nil {
		return nil, fmt.Errorf("%w: manifest: %w", errLost, err)
	}
	defer f.Close()
	m, err := archive.ReadSaved(f)
	if err != nil || m.Digest() != digest {
		return nil, errors.Join(fmt.Errorf("%w: manifest %s is damaged", errLost, f.Name()), err)
	}
	return m, nil
}

// planManifests finds temporary files, and the manifests that no image refers to.
func (p *Pipeline) planManifests(images map[int64]store.Image) ([]Action, error) {
	used := map[string]bool{}
	for _, img := range images {
		if t := img.Tree; t != nil && !img.State.Refused() {
			used[filepath.Base(p.manifestPath(t.Digest))] = true
		}
	}
	entries, err := os.ReadDir(p.cfg.ManifestDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var plan []Action
	for _, e := range entries {
		if !used[e.Name()] {
			plan = append(plan, Action{
				Do: RemoveFile, What: "manifest " + e.Name(), Reason: "no image refers to it", kind: "file",
				remove: func() error { return os.Remove(filepath.Join(p.cfg.ManifestDir, e.Name())) },
			})
		}
	}
	return plan, nil
}

// setAside moves an archive that was refused as an attack out of the way, within the budget: the oldest go first. It may be called
// again at any time.
func (p *Pipeline) setAside(b *store.Blob) error {
	if b == nil || b.Size > p.cfg.ViolationBytes {
		return nil
	}
	if _, err := os.Stat(b.Path); errors.Is(err, fs.ErrNotExist) {
		return nil // done before; to make room again would push out another one
	}
	if err := os.MkdirAll(p.cfg.ViolationDir, 0o700); err != nil {
		return err
	}
	if err := p.makeRoomAside(b.Size); err != nil {
		return err
	}
	err := os.Rename(b.Path, filepath.Join(p.cfg.ViolationDir, b.SHA256+".tar"))
	if errors.Is(err, fs.ErrNotExist) { // somebody else did it meanwhile
		return nil
	}
	return errors.Join(err, syncDir(p.cfg.ViolationDir))
}

func (p *Pipeline) makeRoomAside(size int64) error {
	entries, err := os.ReadDir(p.cfg.ViolationDir)
	if err != nil {
		return err
	}
	var kept []fs.FileInfo
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return err
		}
		kept = append(kept, info)
		size += info.Size()
	}
	slices.SortFunc(kept, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for ; size > p.cfg.ViolationBytes && len(kept) > 0; kept = kept[1:] {
		if err := os.Remove(filepath.Join(p.cfg.ViolationDir, kept[0].Name())); err != nil {
			return err
		}
		size -= kept[0].Size()
	}
	return nil
}

// discard removes everything that was made for an image that is refused or given up.
func (p *Pipeline) discard(ctx context.Context, job *Job) {
	err := p.dropDevices(ctx, job, func(store.Device) bool { return true })
	if err := errors.Join(err, p.discardBlob(job)); err != nil {
		p.logJob(job).Error().Err(err).Msg("clean-up incomplete; the next start finishes it")
	}
}

// discardBlob removes a refused image's archive, or sets it aside.
func (p *Pipeline) discardBlob(job *Job) error {
	var err error
	if job.image.State == store.Violation {
		err = p.setAside(job.image.Blob)
	}
	return errors.Join(err, p.Downloader.Remove(blobName(job.image.ID)))
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

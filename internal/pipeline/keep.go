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
	"syscall"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/durable"
	"imagemanager.internal/internal/failpoint"
	"imagemanager.internal/internal/store"
)

// Two things are kept beside devices and archives: the manifest of every sealed tree,
// under its digest, so that Verify can name what differs; and the archives that were
// refused as attacks, under their SHA-256, for whoever looks into them.

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
	return durable.Rename(f.Name(), p.manifestPath(m.Digest()))
}

// lockManifests keeps removers of manifests out (LOCK_SH), from before one is written
// until the seal that refers to it is recorded; or writers (LOCK_EX). It works between
// processes, and the kernel unlocks for one that dies. fs.ErrNotExist while there is no
// manifest.
func (p *Pipeline) lockManifests(how int) (unlock func(), err error) {
	dir, err := os.Open(p.cfg.ManifestDir)
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

// seal saves the manifest of a filled device and records the seal that refers to it.
func (p *Pipeline) seal(ctx context.Context, job *Job, d *store.Device, tree *store.Tree,
	written *archive.Manifest,
) error {
	if err := os.MkdirAll(p.cfg.ManifestDir, 0o700); err != nil {
		return err
	}
	unlock, err := p.lockManifests(syscall.LOCK_SH)
	if err != nil {
		return err
	}
	defer unlock()
	if err := p.saveManifest(written); err != nil {
		return err
	}
	return p.advance(ctx, job, d, store.DeviceSealed, tree)
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

// loadManifest returns the manifest with the digest; one that has another digest by now
// is errLost.
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

// listManifests lists what is in the directory at a moment when nobody has written a
// manifest whose seal is not recorded yet.
func (p *Pipeline) listManifests() ([]string, error) {
	unlock, err := p.lockManifests(syscall.LOCK_EX)
	if err != nil {
		return nil, err
	}
	defer unlock()
	entries, err := os.ReadDir(p.cfg.ManifestDir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// planManifests finds temporary files, and the manifests that no image refers to. They
// were listed before the journal was read.
func (p *Pipeline) planManifests(names []string, c comparison) []Action {
	used := map[string]bool{}
	for _, img := range c.after.images {
		if t := img.Tree; t != nil && !img.State.Refused() {
			used[filepath.Base(p.manifestPath(t.Digest))] = true
		}
	}
	var plan []Action
	for _, name := range names {
		if !used[name] {
			plan = append(plan, Action{
				Do: RemoveFile, What: "manifest " + name, Reason: "no image refers to it", kind: "file",
				remove: func(ctx context.Context) error { return p.removeManifest(ctx, name) },
			})
		}
	}
	return plan
}

// removeManifest removes a manifest, or a temporary file, unless an image refers to it.
func (p *Pipeline) removeManifest(ctx context.Context, name string) error {
	unlock, err := p.lockManifests(syscall.LOCK_EX)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	used, err := p.Store.TreeUsed(ctx, "sha256:"+name)
	if err != nil || used {
		return err
	}
	if err := os.Remove(filepath.Join(p.cfg.ManifestDir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// setAside moves an archive that was refused as an attack out of the way, within the
// budget: the oldest go first. It may be called again at any time.
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
	err := durable.Rename(b.Path, filepath.Join(p.cfg.ViolationDir, b.SHA256+".tar"))
	if errors.Is(err, fs.ErrNotExist) { // somebody else did it meanwhile
		return nil
	}
	return err
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

// discard removes everything that was made for an image that is refused or given up, but
// what was handed out.
func (p *Pipeline) discard(ctx context.Context, job *Job) {
	err := p.dropDevices(ctx, job, func(d store.Device) bool { return !handedOut(d) })
	if err := errors.Join(err, p.discardBlob(job)); err != nil {
		p.logJob(job).Error().Err(err).Msg("clean-up incomplete; the next reconcile finishes it")
	}
}

// discardBlob removes a refused image's archive, or sets it aside.
func (p *Pipeline) discardBlob(job *Job) error {
	var err error
	if job.image.State == store.StateViolation {
		err = p.setAside(job.image.Blob)
	}
	return errors.Join(err, p.Downloader.Remove(blobName(job.image.ID)))
}

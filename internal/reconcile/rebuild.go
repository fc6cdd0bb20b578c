package reconcile

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/store"
)

// Rebuild activates the snapshots found by ScanPool, and writes the journal of everything
// proved into an empty database.
func (r *Reconciler) Rebuild(ctx context.Context, into *store.Store, pool store.Pool, found []Candidate) error {
	ids, err := r.maxIDs(found)
	if err != nil {
		return err
	}
	var images []store.RebuiltImage
	index := map[int64]int{} // in images, by image id
	for _, c := range found {
		if c.Is == FoundImage {
			index[c.Image] = len(images)
			images = append(images, store.RebuiltImage{Seal: c.seal, Blob: c.blob})
		}
	}
	for i := range found {
		c := &found[i]
		if c.Is != FoundSnapshot {
			continue
		}
		c.Path, err = r.pool.Activate(devmapper.ID(c.Device), devmapper.KindSnapshot, c.seal.DeviceBytes, false)
		if errors.Is(err, devmapper.ErrBusy) { // somebody renamed it, or uses it as something else
			c.markUnproven(err)
			continue
		}
		if err != nil {
			return fmt.Errorf("snapshot %d: %w", c.Device, err)
		}
		image := &images[index[c.Image]]
		image.Snapshots = append(image.Snapshots, store.Snapshot{Device: c.Device, Path: c.Path})
	}
	return into.Rebuild(ctx, pool, images, ids)
}

// Unclaimed lists the archive files of no image found. They stay: the operator
// may yet find the lost database.
func (r *Reconciler) Unclaimed(found []Candidate) ([]string, error) {
	claimed := map[string]bool{}
	for _, c := range found {
		if c.Archive {
			claimed[provision.ArchiveName(c.Image)] = true
		}
	}
	files := []string{}
	names, err := r.archives.List()
	for _, name := range names {
		if !claimed[name] {
			files = append(files, r.archives.Path(name))
		}
	}
	return files, err
}

// maxIDs finds the largest ids in use, of devices and of images. An archive may have
// outlived everything else of its image.
func (r *Reconciler) maxIDs(found []Candidate) (store.MaxIDs, error) {
	var ids store.MaxIDs
	for _, c := range found {
		ids.Device = max(ids.Device, c.Device)
		ids.Image = max(ids.Image, c.seal.Image)
	}
	names, err := r.archives.List()
	for _, name := range names {
		id, _, _ := strings.Cut(filepath.Base(name), ".")
		if n, err := strconv.ParseInt(id, 10, 64); err == nil && n <= store.MaxImageID {
			ids.Image = max(ids.Image, n)
		}
	}
	return ids, err
}

package reconcile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"imagemanager.internal/internal/archive/extract"
	"imagemanager.internal/internal/archive/fstree"
	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/devmapper/ext4"
	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/store"
)

// probeBytes is the size of a device while its own is not known: the largest an image may
// have. What lies behind a device's end reads as zeros, and a file system does not mind a
// device too large for it.
const probeBytes = 100e9

// What a thin device turned out to be, in Candidate.Is.
const (
	FoundImage    = "image"    // it holds the tree of its seal record
	FoundSnapshot = "snapshot" // of such an image
	FoundUnproven = "unproven" // anything else: left alone
)

// Candidate is a thin device of a pool without a journal, and what is known of it.
type Candidate struct {
	Device  int64  `json:"device_id"`
	Is      string `json:"is"` // empty until it is decided
	Image   int64  `json:"image_id,omitempty"`
	Key     string `json:"s3_key,omitempty"`
	Archive bool   `json:"archive"` // an image's archive is there, too
	Path    string `json:"path,omitempty"`
	Why     string `json:"why,omitempty"` // it is unproven

	origin int64 // by the pool's metadata: the origin of a snapshot, 0 for another device
	seal   store.SealRecord
	sealed bool   // it has a seal record
	fsUUID string // as the file system has it
	blob   *store.Blob
}

func (c *Candidate) markUnproven(why error) { c.Is, c.Why = FoundUnproven, why.Error() }

// ScanPool finds the images and snapshots of the pool, as far as they can be proved. It
// works in two phases: each possible image is read, then all are resolved together.
//
// The pool's own metadata decide what a device is: they record the origin of every
// snapshot. The content of a snapshot proves nothing. Its user may have written anything
// to it, a seal record, or a file system made to attack the kernel. So only devices never
// handed out are mounted, read-only, one after the other.
//
// With keep, the manifests of proven trees are saved for Verify. The journal is neither
// needed nor touched. An error is about the pool as a whole: an unreadable device is a
// finding.
func (r *Reconciler) ScanPool(ctx context.Context, pool store.Pool, keep bool) ([]Candidate, error) {
	list, err := r.pool.ResumeSuspended()
	if err != nil {
		return nil, err
	}
	if keep {
		if err := r.host.Manifests.RemovePartial(); err != nil {
			return nil, err
		}
	}
	thins, err := r.pool.Lineage()
	if err != nil {
		return nil, err
	}
	active := map[devmapper.ID]devmapper.ActiveDevice{}
	for _, a := range list {
		active[a.ID] = a
	}
	found := make([]Candidate, len(thins))
	for i, th := range thins {
		c := &found[i]
		c.Device, c.origin = int64(th.ID), int64(th.Origin)
		switch {
		case c.origin != 0: // a snapshot: resolve decides, and nobody looks into it
			continue
		case !th.WasOrigin():
			c.markUnproven(errNeverOrigin)
			continue
		}
		err := r.withDevice(th.ID, active, func(path string) error { return r.inspect(ctx, c, pool, path, keep) })
		if err != nil {
			return nil, fmt.Errorf("thin device %d: %w", th.ID, err)
		}
		r.log.Info().Int64("device_id", c.Device).Bool("sealed", c.sealed).Str("why", c.Why).Msg("thin device read")
	}
	return found, r.resolve(ctx, found)
}

// withDevice calls look with the path of the device: where it is active already, or where
// it is activated read-only for the call. An image's device is active only for a moment,
// so if it is active and nobody has it open, a crash left it.
func (r *Reconciler) withDevice(id devmapper.ID, active map[devmapper.ID]devmapper.ActiveDevice,
	look func(path string) error,
) (err error) {
	if a, found := active[id]; found {
		if !a.HalfCreated && (a.Kind != devmapper.KindImage || a.Open > 0) {
			return look(a.Path)
		}
		if err := r.pool.Deactivate(id); err != nil {
			return err
		}
	}
	path, err := r.pool.Activate(id, devmapper.KindImage, probeBytes, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.pool.Deactivate(id)) }()
	return look(path)
}

// inspect finds out whether a device is an image. What it cannot find out is a finding;
// the error is the cause of ctx, or about this machine.
func (r *Reconciler) inspect(ctx context.Context, c *Candidate, pool store.Pool, path string, keep bool) error {
	tree, err := r.readSealed(ctx, c, path)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err == nil {
		err = c.checkSeal(pool, tree.Digest())
	}
	if err != nil {
		c.markUnproven(err)
		return nil
	}
	if c.seal.PoolName != pool.Name { // snapshots would come back under other paths
		return fmt.Errorf("%w: the pool was named %s when device %d was sealed, not %s: give it its name",
			devmapper.ErrForeign, c.seal.PoolName, c.Device, pool.Name)
	}
	c.Is = FoundImage
	if keep {
		return r.host.Manifests.Save(tree)
	}
	return nil
}

// checkSeal compares the seal record with its device.
func (c *Candidate) checkSeal(pool store.Pool, digest string) error {
	switch {
	case c.seal.PoolUUID != pool.UUID:
		return fmt.Errorf("it was sealed in the pool %s", c.seal.PoolUUID)
	case c.seal.Device != c.Device:
		return fmt.Errorf("it was sealed as device %d", c.seal.Device)
	case c.seal.FSUUID != c.fsUUID:
		return fmt.Errorf("its file system is %s, sealed was %s", c.fsUUID, c.seal.FSUUID)
	case digest != c.seal.Digest:
		return fmt.Errorf("its tree is %s, sealed was %s", digest, c.seal.Digest)
	}
	return nil
}

var (
	// errNeverOrigin is why a device is not looked into.
	errNeverOrigin = errors.New("no snapshot was ever taken of it, and it shares no data with an image: " +
		"it may be anybody's, and is not looked into")
	errNoSealRecord = errors.New("it has no seal record: it is an image of an earlier version, " +
		"an image that was not finished, or not this program's")
)

// readSealed reads the seal record of a device and its tree.
func (r *Reconciler) readSealed(ctx context.Context, c *Candidate, path string) (tree *fstree.Inventory, err error) {
	if c.fsUUID, err = devmapper.FilesystemUUID(path); err != nil {
		return nil, err
	}
	m, err := devmapper.MountDetached(path, ext4.MountInspect)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	record, err := extract.ReadSealRecord(m.Root())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoSealRecord
	}
	if err != nil {
		return nil, err
	}
	if c.seal, err = store.ParseSealRecord(record); err != nil {
		return nil, err
	}
	c.sealed = true
	return extract.ReadBack(ctx, m.Root())
}

// resolve sorts the devices into images and their snapshots. Where several claim to be
// the same image, the newest is.
func (r *Reconciler) resolve(ctx context.Context, found []Candidate) error {
	byDevice, byImage, byObject := map[int64]*Candidate{}, map[int64]*Candidate{}, map[string]*Candidate{}
	for i := range slices.Backward(found) {
		c := &found[i]
		if c.Is != FoundImage {
			continue
		}
		o := c.seal.Object()
		identity := fmt.Sprintf("%q %q %q", o.Bucket, o.Key, o.Version())
		newer := byImage[c.seal.Image]
		if newer == nil {
			newer = byObject[identity]
		}
		if newer != nil {
			c.markUnproven(fmt.Errorf("device %d is the same image", newer.Device))
			continue
		}
		byDevice[c.Device], byImage[c.seal.Image], byObject[identity] = c, c, c
		c.Image, c.Key = c.seal.Image, c.seal.Key
		if err := r.findArchive(ctx, c); err != nil {
			return err
		}
	}
	for i := range found {
		if c := &found[i]; c.Is == "" {
			c.matchSnapshot(byDevice)
		}
	}
	return nil
}

// matchSnapshot finds the image of a snapshot. What is on the device now is its user's.
func (c *Candidate) matchSnapshot(images map[int64]*Candidate) {
	image := images[c.origin]
	if image == nil {
		c.markUnproven(fmt.Errorf("it is a snapshot of device %d, which is not proven", c.origin))
		return
	}
	c.Is, c.Image, c.Key, c.seal = FoundSnapshot, image.Image, image.Key, image.seal
}

// findArchive looks for the image's archive where it was kept.
func (r *Reconciler) findArchive(ctx context.Context, c *Candidate) error {
	b, err := r.archives.Check(ctx, download.Blob{
		Path:   r.archives.Path(provision.ArchiveName(c.seal.Image)),
		SHA256: c.seal.ArchiveSHA256, Size: c.seal.ArchiveSize,
	})
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		r.log.Info().Err(err).Int64("image_id", c.seal.Image).Msg("archive is not there")
		return nil
	}
	blob := provision.BlobOf(b)
	c.blob, c.Archive = &blob, true
	return nil
}

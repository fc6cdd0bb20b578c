package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/store"
)

// probeBytes is the size with which a device is looked at whose own is not known yet: the
// largest that an image may have. What lies behind a device's end reads as zeros, and a
// file system does not mind a device that is too large.
const probeBytes = 100e9

// What a thin device turned out to be, in Found.Is.
const (
	FoundImage    = "image"    // it holds the tree that its seal record promises
	FoundSnapshot = "snapshot" // of such an image
	FoundUnproven = "unproven" // anything else: left alone
)

// Found is a thin device of a pool whose journal is lost, and what is known of it.
type Found struct {
	Device  int64  `json:"device_id"`
	Is      string `json:"is"`
	Image   int64  `json:"image_id,omitempty"`
	Key     string `json:"s3_key,omitempty"`
	Archive bool   `json:"archive"` // an image's archive is there, too
	Path    string `json:"path,omitempty"`
	Why     string `json:"why,omitempty"` // it is unproven

	origin int64 // by the pool's metadata: the device whose data it shares, 0 for none
	seal   store.Seal
	sealed bool   // there is a seal
	fsUUID string // as the file system has it
	blob   *store.Blob
}

func (f *Found) unproven(why error) {
	f.Is, f.Why = FoundUnproven, why.Error()
}

// Survey finds the images and snapshots of the pool that can be proved. What a device is
// the pool's own metadata say: they know of which devices snapshots were taken, and who
// shares whose data. Whoever uses a snapshot can write to it whatever he likes, a seal
// record or a file system that attacks whoever mounts it: so only what was never handed
// out is mounted, active, read-only, one after the other. With keep, the manifests of
// proven trees are saved for Verify. The journal is neither needed nor touched. An error
// is about the pool as a whole: a device that cannot be read is a finding.
func (p *Pipeline) Survey(ctx context.Context, pool store.Pool, keep bool) ([]Found, error) {
	if err := p.Pool.ResumeSuspended(); err != nil {
		return nil, err
	}
	if keep {
		if err := p.removePartialManifests(); err != nil {
			return nil, err
		}
	}
	thins, err := p.Pool.Lineage()
	if err != nil {
		return nil, err
	}
	list, err := p.Pool.Active()
	if err != nil {
		return nil, err
	}
	active := map[devmapper.ID]devmapper.ActiveDevice{}
	for _, a := range list {
		active[a.ID] = a
	}
	found := make([]Found, len(thins))
	for i, th := range thins {
		f := &found[i]
		f.Device, f.origin = int64(th.ID), int64(th.Origin)
		switch {
		case f.origin != 0: // a snapshot: settleFound decides, and nobody looks into it
			continue
		case !th.WasOrigin():
			f.unproven(errNoOrigin)
			continue
		}
		err := p.expose(th.ID, active, func(path string) error { return p.examine(ctx, f, pool, path, keep) })
		if err != nil {
			return nil, fmt.Errorf("thin device %d: %w", th.ID, err)
		}
		p.Log.Info().Int64("device_id", f.Device).Bool("sealed", f.sealed).Str("why", f.Why).Msg("thin device read")
	}
	return found, p.settleFound(ctx, found)
}

// expose calls look with the path of the device: where it is active already, else
// activated read-only for the time. An image's device is never active for long, so one
// that is and that nobody has open was left by a crash.
func (p *Pipeline) expose(id devmapper.ID, active map[devmapper.ID]devmapper.ActiveDevice,
	look func(path string) error,
) (err error) {
	if a, is := active[id]; is {
		if !a.HalfCreated && (a.Kind != devmapper.KindImage || a.Open > 0) {
			return look(a.Path)
		}
		if err := p.Pool.Deactivate(id); err != nil {
			return err
		}
	}
	path, err := p.Pool.Activate(id, devmapper.KindImage, probeBytes, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Pool.Deactivate(id)) }()
	return look(path)
}

// examine finds out what is on a device. What it cannot find out is a finding; the error
// is the cause of ctx, or about this machine.
func (p *Pipeline) examine(ctx context.Context, f *Found, pool store.Pool, path string, keep bool) error {
	written, err := p.readSealed(ctx, f, path)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		f.unproven(err)
	case f.seal.PoolUUID != pool.UUID:
		f.unproven(fmt.Errorf("it was sealed in the pool %s", f.seal.PoolUUID))
	case f.seal.Device != f.Device:
		f.unproven(fmt.Errorf("it was sealed as device %d", f.seal.Device))
	case f.seal.FSUUID != f.fsUUID:
		f.unproven(fmt.Errorf("its file system is %s, sealed was %s", f.fsUUID, f.seal.FSUUID))
	case written.Digest() != f.seal.Digest:
		f.unproven(fmt.Errorf("its tree is %s, sealed was %s", written.Digest(), f.seal.Digest))
	case f.seal.PoolName != pool.Name: // snapshots would come back under other paths
		return fmt.Errorf("%w: the pool was named %s when device %d was sealed, not %s: give it its name",
			devmapper.ErrForeign, f.seal.PoolName, f.Device, pool.Name)
	default:
		f.Is = FoundImage
		if keep {
			return p.saveManifest(written)
		}
	}
	return nil
}

// errNoOrigin is why a device is not looked into.
var errNoOrigin = errors.New(
	"no snapshot was ever taken of it, and it shares no data with an image: it may be anybody's, and is not looked into")

// readSealed reads the seal of a device and its tree.
func (p *Pipeline) readSealed(ctx context.Context, f *Found, path string) (tree *archive.Manifest, err error) {
	if f.fsUUID, err = devmapper.FilesystemUUID(path); err != nil {
		return nil, err
	}
	m, err := devmapper.MountDetached(path, devmapper.MountInspect)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	record, err := archive.ReadSeal(m.Root())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("it has no seal record: an earlier version's image, one that was not finished, or not this program's")
	}
	if err != nil {
		return nil, err
	}
	if f.seal, err = store.ParseSeal(record); err != nil {
		return nil, err
	}
	f.sealed = true
	return archive.ReadManifest(ctx, m.Root())
}

// settleFound settles which devices are images, the newest first where several claim to
// be the same one, and which are their snapshots.
func (p *Pipeline) settleFound(ctx context.Context, found []Found) error {
	byDevice, byImage, byObject := map[int64]*Found{}, map[int64]*Found{}, map[string]*Found{}
	for i := range slices.Backward(found) {
		f := &found[i]
		if f.Is != FoundImage {
			continue
		}
		o := f.seal.Object()
		identity := fmt.Sprintf("%q %q %q", o.Bucket, o.Key, o.Version())
		if first := either(byImage[f.seal.Image], byObject[identity]); first != nil {
			f.unproven(fmt.Errorf("device %d is the same image", first.Device))
			continue
		}
		byDevice[f.Device], byImage[f.seal.Image], byObject[identity] = f, f, f
		f.Image, f.Key = f.seal.Image, f.seal.Key
		if err := p.findArchive(ctx, f); err != nil {
			return err
		}
	}
	for i := range found {
		if f := &found[i]; f.Is == "" {
			f.becomeSnapshot(byDevice)
		}
	}
	return nil
}

func either(a, b *Found) *Found {
	if a != nil {
		return a
	}
	return b
}

// becomeSnapshot finds the image that the device is a snapshot of. What is on it now is
// its user's.
func (f *Found) becomeSnapshot(images map[int64]*Found) {
	image := images[f.origin]
	if image == nil {
		f.unproven(fmt.Errorf("it is a snapshot of device %d, which is not proven", f.origin))
		return
	}
	f.Is, f.Image, f.Key, f.seal = FoundSnapshot, image.Image, image.Key, image.seal
}

// findArchive looks for the image's archive where it was kept.
func (p *Pipeline) findArchive(ctx context.Context, f *Found) error {
	b, err := p.Downloader.Check(ctx, download.Blob{
		Path: p.Downloader.Path(blobName(f.seal.Image)), SHA256: f.seal.ArchiveSHA256, Size: f.seal.ArchiveSize,
	})
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		p.Log.Info().Err(err).Int64("image_id", f.seal.Image).Msg("archive is not there")
		return nil
	}
	blob := recordOf(b)
	f.blob, f.Archive = &blob, true
	return nil
}

// Rebuild activates the snapshots that Survey found and writes the journal of all that
// was proved into an empty database.
func (p *Pipeline) Rebuild(ctx context.Context, pool store.Pool, found []Found) error {
	taken, err := p.largestIDs(found)
	if err != nil {
		return err
	}
	var images []store.Rebuilt
	at := map[int64]int{}
	for _, f := range found {
		if f.Is == FoundImage {
			at[f.Image] = len(images)
			images = append(images, store.Rebuilt{Seal: f.seal, Blob: f.blob})
		}
	}
	for i := range found {
		f := &found[i]
		if f.Is != FoundSnapshot {
			continue
		}
		f.Path, err = p.Pool.Activate(devmapper.ID(f.Device), devmapper.KindSnapshot, f.seal.DeviceBytes, false)
		if errors.Is(err, devmapper.ErrBusy) { // somebody renamed it, or uses it as something else
			f.unproven(err)
			continue
		}
		if err != nil {
			return fmt.Errorf("snapshot %d: %w", f.Device, err)
		}
		r := &images[at[f.Image]]
		r.Snapshots = append(r.Snapshots, store.Snapshot{Device: f.Device, Path: f.Path})
	}
	return p.Store.Rebuild(ctx, pool, images, taken)
}

// Unclaimed lists the files among the archives that no image found claims. They stay: the
// operator may yet find the lost database.
func (p *Pipeline) Unclaimed(found []Found) ([]string, error) {
	claimed := map[string]bool{}
	for _, f := range found {
		if f.Archive {
			claimed[blobName(f.Image)] = true
		}
	}
	files := []string{}
	names, err := p.Downloader.List()
	for _, name := range names {
		if !claimed[name] {
			files = append(files, p.Downloader.Path(name))
		}
	}
	return files, err
}

// largestIDs finds the largest ids in use: of devices, and of images, whose archives may
// have outlived everything else.
func (p *Pipeline) largestIDs(found []Found) (store.MaxIDs, error) {
	var t store.MaxIDs
	for _, f := range found {
		t.Device = max(t.Device, f.Device)
		t.Image = max(t.Image, f.seal.Image)
	}
	names, err := p.Downloader.List()
	for _, name := range names {
		id, _, _ := strings.Cut(filepath.Base(name), ".")
		if n, err := strconv.ParseInt(id, 10, 64); err == nil && n <= store.MaxImage {
			t.Image = max(t.Image, n)
		}
	}
	return t, err
}

// Package invariants says what must hold on a host while no daemon changes anything: the
// journal, the pool and the files of the state directory tell the same, and nothing is
// left over. It is for tests that have killed, cut off, or filled up something.
package invariants

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/devmapper/ext4"
	"imagemanager.internal/internal/store"
)

// Host is what the journal, the pool and the files of a machine hold.
type Host struct {
	StateDir string
	Images   []store.Image
	Events   map[int64][]store.Event // by image
	Devices  []store.Device          // in the journal
	Thins    []devmapper.ID          // in the pool
	Active   []devmapper.ActiveDevice
	Pool     devmapper.Status
	Files    []string // archives and manifests
}

// OpenPool opens the pool that the journal names.
func OpenPool(ctx context.Context, st *store.Store) (*devmapper.Pool, error) {
	row, err := st.Pool(ctx)
	if err != nil {
		return nil, err
	}
	return devmapper.Open(ctx, ConfigOf(row))
}

// ConfigOf is the configuration of the pool that a row is about.
func ConfigOf(row store.Pool) devmapper.Config {
	return devmapper.Config{
		Name: row.Name, UUID: row.UUID, Data: row.Data, Metadata: row.Metadata,
		BlockSize: row.BlockSize,
	}
}

// Look looks at a host.
func Look(ctx context.Context, st *store.Store, stateDir string) (Host, error) {
	h := Host{StateDir: stateDir, Events: map[int64][]store.Event{}}
	if err := h.lookAtJournal(ctx, st); err != nil {
		return h, err
	}
	for _, dir := range []string{blobs, manifests} {
		files, err := filepath.Glob(filepath.Join(stateDir, dir, "*"))
		if err != nil {
			return h, err
		}
		h.Files = append(h.Files, files...)
	}
	pool, err := OpenPool(ctx, st)
	if err != nil {
		return h, err
	}
	return h, errors.Join(h.lookAtPool(pool), pool.Close())
}

func (h *Host) lookAtJournal(ctx context.Context, st *store.Store) (err error) {
	if h.Images, err = st.Images(ctx); err != nil {
		return err
	}
	for _, img := range h.Images {
		if h.Events[img.ID], err = st.History(ctx, img.ID); err != nil {
			return err
		}
	}
	h.Devices, err = st.Devices(ctx)
	return err
}

func (h *Host) lookAtPool(pool *devmapper.Pool) error {
	thins, err := pool.Thins()
	if err != nil {
		return err
	}
	for _, th := range thins {
		h.Thins = append(h.Thins, th.ID)
	}
	if h.Active, err = pool.Active(); err != nil {
		return err
	}
	h.Pool, err = pool.Status()
	return err
}

// Broken says what does not hold; nothing if all does.
func (h Host) Broken() []string {
	var b broken
	h.pool(&b)
	h.devices(&b)
	b = append(b, h.Unfolded()...)
	h.files(&b)
	return b
}

type broken []string

func (b *broken) addf(format string, args ...any) { *b = append(*b, fmt.Sprintf(format, args...)) }

// pool: it may be written to, and no metadata snapshot keeps blocks in it.
func (h Host) pool(b *broken) {
	if h.Pool.Mode != devmapper.ModeReadWrite || h.Pool.NeedsCheck || h.Pool.HeldRoot {
		b.addf("the pool is not sound: %+v", h.Pool)
	}
}

// devices: every row is finished and has its thin device, every thin device has its row;
// snapshots are active, and nothing else is.
func (h Host) devices(b *broken) {
	rows, active := map[devmapper.ID]bool{}, map[devmapper.ID]bool{}
	for _, d := range h.Devices {
		rows[devmapper.ID(d.ID)] = true
		if d.State != store.DeviceReady {
			b.addf("device %d is %s", d.ID, d.State)
		}
		if d.Kind == store.DeviceKindSnapshot {
			active[devmapper.ID(d.ID)] = true
		}
	}
	for _, id := range h.Thins {
		if !rows[id] {
			b.addf("thin device %d is in the pool and not in the journal", id)
		}
		delete(rows, id)
	}
	for id := range rows {
		b.addf("thin device %d is in the journal and not in the pool", id)
	}
	for _, d := range h.Active {
		if !active[d.ID] || d.HalfCreated || d.Suspended {
			b.addf("active device %s should not be: %+v", d.Name, d)
		}
		delete(active, d.ID)
	}
	for id := range active {
		b.addf("snapshot %d is not active", id)
	}
}

// Unfolded says which images' rows are not the folds of their events.
func (h Host) Unfolded() []string {
	var b broken
	for _, img := range h.Images {
		p, err := store.Fold(store.Progress{}, h.Events[img.ID]...)
		fold, ferr := json.Marshal(p)
		row, rerr := json.Marshal(img.Progress)
		if err := errors.Join(err, ferr, rerr); err != nil || string(fold) != string(row) {
			b.addf("image %d: fold %s, row %s: %v", img.ID, fold, row, err)
		}
	}
	return b
}

const (
	blobs     = "blobs"
	manifests = "manifests"
)

// files: the archives and manifests of the active images are there, and no other file.
func (h Host) files(b *broken) {
	claimed := map[string]bool{}
	for _, img := range h.Images {
		if img.State == store.StateActive {
			if img.Blob != nil { // it may be lost while the image is in use
				claimed[img.Blob.Path] = true
			}
			if img.Tree != nil { // its own device may be lost while its snapshots are in use
				claimed[filepath.Join(h.StateDir, manifests, strings.TrimPrefix(img.Tree.Digest, "sha256:"))] = true
			}
		}
	}
	for _, f := range h.Files {
		if !claimed[f] {
			b.addf("file %s belongs to no image", f)
		}
		delete(claimed, f)
	}
	for f := range claimed {
		b.addf("file %s is missing", f)
	}
}

// ReadFile reads a file of the file system on a device, mounted for no other.
func ReadFile(device, name string) (text []byte, err error) {
	m, err := devmapper.MountDetached(device, ext4.MountInspect)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", m.Root().Fd()))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.ReadFile(name)
}

package crash

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
)

// whole checks, while no daemon changes anything, that journal, pool, blobs and machine agree and nothing is left over: I1 to I9 of
// the reference, but for the content, which is for verify. It returns all that a further start must not change.
func (h *host) whole() string {
	h.t.Helper()
	ctx := h.t.Context()
	pool, err := h.store.Pool(ctx)
	h.check(err)
	h.wholePool(pool.Name)
	devices, err := h.store.Devices(ctx)
	h.check(err)
	thins, active := h.kernel(pool)
	for _, d := range devices {
		id := devmapper.ID(d.ID)
		if d.State != store.Ready {
			h.errorf("device %d is %s", d.ID, d.State)
		}
		if !slices.Contains(thins, id) {
			h.errorf("thin device %d is in the journal and not in the pool", id)
		}
		if _, is := active[id]; is != (d.Kind == store.SnapshotDevice) {
			h.errorf("device %d, of kind %s, is active: %t", d.ID, d.Kind, is)
		}
	}
	if len(thins) != len(devices) || len(active)*2 != len(devices) {
		h.errorf("%d thin devices in the pool, %d active, for %d in the journal", len(thins), len(active), len(devices))
	}
	h.wholeImages()
	h.acknowledged()
	h.wholeMachine(pool)
	return fmt.Sprint(h.lastEvent(), thins, active, h.files())
}

// wholePool looks with dmsetup, which changes nothing: Open would release a metadata snapshot that is held.
func (h *host) wholePool(name string) {
	h.t.Helper()
	out, err := exec.Command("dmsetup", "status", "--noflush", "cim-"+name+"-pool").CombinedOutput()
	h.check(err)
	if f := strings.Fields(string(out)); len(f) < 11 || f[6] != "-" || f[7] != "rw" || f[10] != "-" {
		h.errorf("the pool is not sound: %s", out)
	}
}

// kernel returns the thin devices of the pool, and the active ones by id.
func (h *host) kernel(row store.Pool) (thins []devmapper.ID, active map[devmapper.ID]string) {
	h.t.Helper()
	pool, err := devmapper.Open(h.t.Context(), configOf(row))
	h.check(err)
	defer pool.Close()
	list, err := pool.Thins()
	h.check(err)
	for _, th := range list {
		thins = append(thins, th.ID)
	}
	found, err := pool.Active()
	h.check(err)
	active = map[devmapper.ID]string{}
	for _, d := range found {
		if d.HalfCreated || d.Suspended || d.Open > 0 {
			h.errorf("device %s: %+v", d.Name, d)
		}
		active[d.ID] = d.Name
	}
	return thins, active
}

func configOf(row store.Pool) devmapper.Config {
	return devmapper.Config{Name: row.Name, UUID: row.UUID, Data: row.Data, Metadata: row.Metadata, BlockSize: row.BlockSize}
}

// wholeImages checks that every image is active exactly once, and its row the fold of its events.
func (h *host) wholeImages() {
	h.t.Helper()
	ctx := h.t.Context()
	images, err := h.store.Images(ctx)
	h.check(err)
	keys := map[string]bool{}
	for _, img := range images {
		if keys[img.Key] {
			h.errorf("%s is two images", img.Key)
		}
		keys[img.Key] = true
		events, err := h.store.History(ctx, img.ID)
		h.check(err)
		p, err := store.Fold(events)
		h.check(err)
		fold, err := json.Marshal(p)
		h.check(err)
		row, err := json.Marshal(img.Progress)
		h.check(err)
		if string(fold) != string(row) {
			h.errorf("image %d: fold %s, row %s", img.ID, fold, row)
		}
		devices, err := h.store.DevicesOf(ctx, img.ID)
		h.check(err)
		want, again := 0, 0
		if img.State == store.Active {
			want, again = 2, book.Lost
		}
		made := 0
		for _, e := range events {
			if e.Kind == store.Done && e.Detail.Snapshot != nil {
				made++
			}
		}
		if len(devices) != want || made != want/2+again {
			h.errorf("image %d is %s: activated %d times, devices %+v", img.ID, img.State, made, devices)
		}
	}
}

// acknowledged checks that an image whose message is gone has ended, at any moment: nobody will tell of it again.
func (h *host) acknowledged() {
	h.t.Helper()
	for _, key := range book.Keys {
		if !h.w.isDeleted(key) {
			continue
		}
		if img, ok := h.image(key); !ok || img.State == store.Pending {
			h.errorf("the message about %s is deleted, and its image is: %+v", key, img)
		}
	}
}

func (h *host) image(key string) (store.Image, bool) {
	h.t.Helper()
	images, err := h.store.ByKey(h.t.Context(), key)
	h.check(err)
	if len(images) == 0 {
		return store.Image{}, false
	}
	return images[0], true
}

// wholeMachine checks that no mount, no worker and no loop device is left but those of the pool, and no file that nobody claims.
func (h *host) wholeMachine(pool store.Pool) {
	h.t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	h.check(err)
	if strings.Contains(string(mounts), "/dev/dm-") || strings.Contains(string(mounts), "/dev/mapper/") {
		h.errorf("left mounted: %s", mounts)
	}
	for _, f := range h.glob("/proc/[0-9]*/comm") {
		if name, err := os.ReadFile(f); err == nil && strings.HasPrefix(string(name), "mke2fs") {
			h.errorf("left running: %s %s", f, name)
		}
	}
	for _, f := range h.glob("/sys/block/loop*/loop/backing_file") {
		if name, err := os.ReadFile(f); err == nil && !slices.Contains([]string{pool.Data, pool.Metadata}, strings.TrimSpace(string(name))) {
			h.errorf("left attached: %s", name)
		}
	}
	claimed := map[string]bool{}
	images, err := h.store.Images(h.t.Context())
	h.check(err)
	for _, img := range images {
		if img.State == store.Active {
			claimed[img.Blob.Path] = true
			claimed[filepath.Join(h.dir, "state", "manifests", strings.TrimPrefix(img.Tree.Digest, "sha256:"))] = true
		}
	}
	for _, f := range h.files() {
		if !claimed[f] {
			h.errorf("file %s belongs to no image", f)
		}
		delete(claimed, f)
	}
	for f := range claimed {
		h.errorf("file %s is missing", f)
	}
}

func (h *host) glob(pattern string) []string {
	h.t.Helper()
	list, err := filepath.Glob(pattern)
	h.check(err)
	return list
}

// files are the archives and manifests.
func (h *host) files() []string {
	return append(h.glob(filepath.Join(h.dir, "state", "blobs", "*")), h.glob(filepath.Join(h.dir, "state", "manifests", "*"))...)
}

func (h *host) lastEvent() int64 {
	h.t.Helper()
	last := int64(0)
	for {
		events, err := h.store.Since(h.t.Context(), last)
		h.check(err)
		if len(events) == 0 {
			return last
		}
		last = events[len(events)-1].Seq
	}
}

// reads checks that the key's snapshot holds what was uploaded.
func (h *host) reads(key string) {
	h.t.Helper()
	img, _ := h.image(key)
	snapshots, err := h.store.SnapshotsOf(h.t.Context(), img.ID)
	h.check(err)
	if len(snapshots) != 1 {
		h.errorf("%s has %d active snapshots", key, len(snapshots))
		return
	}
	m, err := devmapper.MountDetached(snapshots[0].Path, devmapper.MountInspect)
	h.check(err)
	defer m.Close()
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", m.Root().Fd()))
	h.check(err)
	defer root.Close()
	f, err := root.Open("rootfs/etc/hello")
	h.check(err)
	defer f.Close()
	text, err := io.ReadAll(f)
	h.check(err)
	if string(text) != key {
		h.errorf("the snapshot of %s reads %q", key, text)
	}
}

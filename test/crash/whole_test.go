package crash

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"imagemanager.internal/internal/store"
	"imagemanager.internal/test/invariants"
)

// whole checks what must hold while no daemon changes anything, but for the content, which is for verify. It returns all that a further
// start must not change.
func (h *host) whole() string {
	h.t.Helper()
	pool, err := h.store.Pool(h.t.Context())
	h.check(err)
	h.wholePool(pool.Name)
	found, err := invariants.Look(h.t.Context(), h.store, filepath.Join(h.dir, "state"))
	h.check(err)
	for _, b := range found.Broken() {
		h.errorf("%s", b)
	}
	var active []string
	for _, d := range found.Active {
		active = append(active, d.Name)
		if d.Open > 0 {
			h.errorf("%s is in use: %+v", d.Name, d)
		}
	}
	slices.Sort(active)
	h.wholeImages(found)
	h.acknowledged()
	h.wholeMachine(pool)
	return fmt.Sprint(h.lastEvent(), found.Thins, active, found.Files)
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

// wholeImages checks that every image was activated once, or again where its pool was lost.
func (h *host) wholeImages(found invariants.Host) {
	h.t.Helper()
	keys := map[string]bool{}
	for _, img := range found.Images {
		if keys[img.Key] {
			h.errorf("%s is two images", img.Key)
		}
		keys[img.Key] = true
		devices, err := h.store.DevicesOf(h.t.Context(), img.ID)
		h.check(err)
		want, again := 0, 0
		if img.State == store.Active {
			want, again = 2, book.Lost
		}
		made := 0
		for _, e := range found.Events[img.ID] {
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

// wholeMachine checks that no mount, no worker and no loop device is left but those of the pool.
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
}

func (h *host) glob(pattern string) []string {
	h.t.Helper()
	list, err := filepath.Glob(pattern)
	h.check(err)
	return list
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
	text, err := invariants.ReadFile(snapshots[0].Path, "rootfs/etc/hello")
	h.check(err)
	if string(text) != key {
		h.errorf("the snapshot of %s reads %q", key, text)
	}
}

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

// checkInvariants checks what must hold while no daemon changes anything, but for the
// content, which is for verify. It returns all that a further start must not change.
func (h *host) checkInvariants() string {
	h.T.Helper()
	pool, err := h.Store.Pool(h.T.Context())
	h.Check(err)
	h.checkPool(pool.Name)
	found, err := invariants.Look(h.T.Context(), h.Store, filepath.Join(h.dir, "state"))
	h.Check(err)
	for _, b := range found.Broken() {
		h.Errorf("%s", b)
	}
	var active []string
	for _, d := range found.Active {
		active = append(active, d.Name)
		if d.Open > 0 {
			h.Errorf("%s is in use: %+v", d.Name, d)
		}
	}
	slices.Sort(active)
	h.checkImages(found)
	h.checkAcknowledged()
	h.checkMachine(pool)
	return fmt.Sprint(h.lastEvent(), found.Thins, active, found.Files)
}

// checkPool looks with dmsetup, which changes nothing: Open would release a metadata
// snapshot that is held.
func (h *host) checkPool(name string) {
	h.T.Helper()
	out, err := exec.Command("dmsetup", "status", "--noflush", "cim-"+name+"-pool").CombinedOutput()
	h.Check(err)
	if f := strings.Fields(string(out)); len(f) < 11 || f[6] != "-" || f[7] != "rw" || f[10] != "-" {
		h.Errorf("the pool is not sound: %s", out)
	}
}

// checkImages checks that every image was activated once, or again where its pool was
// lost.
func (h *host) checkImages(found invariants.Host) {
	h.T.Helper()
	keys := map[string]bool{}
	for _, img := range found.Images {
		if keys[img.Key] {
			h.Errorf("%s is two images", img.Key)
		}
		keys[img.Key] = true
		devices, err := h.Store.DevicesOf(h.T.Context(), img.ID)
		h.Check(err)
		want, again := 0, 0
		if img.State == store.StateActive {
			want, again = 2, saved.Lost
		}
		made := 0
		for _, e := range found.Events[img.ID] {
			if e.Kind == store.EventDone && e.Detail.Snapshot != nil {
				made++
			}
		}
		if len(devices) != want || made != want/2+again {
			h.Errorf("image %d is %s: activated %d times, devices %+v", img.ID, img.State, made, devices)
		}
	}
}

// checkAcknowledged checks that an image whose message is gone has ended, at any moment:
// nobody will tell of it again.
func (h *host) checkAcknowledged() {
	h.T.Helper()
	for _, key := range saved.Keys {
		if !h.w.isDeleted(key) {
			continue
		}
		if img, ok := h.image(key); !ok || img.State == store.StatePending {
			h.Errorf("the message about %s is deleted, and its image is: %+v", key, img)
		}
	}
}

func (h *host) image(key string) (store.Image, bool) {
	h.T.Helper()
	images, err := h.Store.ByKey(h.T.Context(), key)
	h.Check(err)
	if len(images) == 0 {
		return store.Image{}, false
	}
	return images[0], true
}

// checkMachine checks that no mount, no worker and no loop device is left but those of
// the pool.
func (h *host) checkMachine(pool store.Pool) {
	h.T.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	h.Check(err)
	if strings.Contains(string(mounts), "/dev/dm-") || strings.Contains(string(mounts), "/dev/mapper/") {
		h.Errorf("left mounted: %s", mounts)
	}
	for _, f := range h.glob("/proc/[0-9]*/comm") {
		if name, err := os.ReadFile(f); err == nil && strings.HasPrefix(string(name), "mke2fs") {
			h.Errorf("left running: %s %s", f, name)
		}
	}
	for _, f := range h.glob("/sys/block/loop*/loop/backing_file") {
		if name, err := os.ReadFile(f); err == nil &&
			!slices.Contains([]string{pool.Data, pool.Metadata}, strings.TrimSpace(string(name))) {
			h.Errorf("left attached: %s", name)
		}
	}
}

func (h *host) glob(pattern string) []string {
	h.T.Helper()
	list, err := filepath.Glob(pattern)
	h.Check(err)
	return list
}

func (h *host) lastEvent() int64 {
	h.T.Helper()
	last := int64(0)
	for {
		events, err := h.Store.Since(h.T.Context(), last)
		h.Check(err)
		if len(events) == 0 {
			return last
		}
		last = events[len(events)-1].Seq
	}
}

// checkReadable checks that the key's snapshot holds what was uploaded.
func (h *host) checkReadable(key string) {
	h.T.Helper()
	img, _ := h.image(key)
	snapshots, err := h.Store.SnapshotsOf(h.T.Context(), img.ID)
	h.Check(err)
	if len(snapshots) != 1 {
		h.Errorf("%s has %d active snapshots", key, len(snapshots))
		return
	}
	text, err := invariants.ReadFile(snapshots[0].Path, "rootfs/etc/hello")
	h.Check(err)
	if string(text) != key {
		h.Errorf("the snapshot of %s reads %q", key, text)
	}
}

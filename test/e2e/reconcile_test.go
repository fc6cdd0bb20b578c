package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
	"imagemanager.internal/test/invariants"
)

// The running daemon notices losses by itself, without any message, and repairs them: a
// snapshot that is not active, an image's device that is gone from the pool. It reports
// foreign devices and leaves them alone.
func TestReconcile(t *testing.T) {
	h := newHost(t)
	pool := h.pool()
	h.Start()
	img := h.makeFirst()
	h.WaitDrained()
	before, err := h.Store.SnapshotsOf(t.Context(), img.ID)
	h.Check(err)

	h.Check(pool.Deactivate(devmapper.ID(before[0].Device)))
	h.WaitFor("the snapshot is active again", func() bool {
		_, err := os.Stat(before[0].Path)
		return err == nil
	})
	h.checkReadable(img)

	h.Check(pool.Delete(devmapper.ID(img.Tree.Device)))
	var again store.Image
	h.WaitFor("the image has another device", func() bool {
		again, err = h.Store.Image(t.Context(), img.ID)
		h.Check(err)
		return again.State == store.StateActive && again.Tree.Device != img.Tree.Device
	})
	if again.Tree.Digest != img.Tree.Digest {
		t.Errorf("made again with digest %s, was %s", again.Tree.Digest, img.Tree.Digest)
	}

	alien := filepath.Join(h.dir(), "state", "blobs", "alien")
	h.Check(os.WriteFile(alien, []byte("x"), 0o600))
	if out := h.Consumer("reconcile", "--dry-run"); !strings.Contains(out, "file alien") ||
		!strings.Contains(out, "report") {
		t.Errorf("reconcile --dry-run: %s", out)
	}
	if out, code := h.Try("reconcile"); code != 4 || !strings.Contains(out, "--dry-run") {
		t.Errorf("reconcile beside the daemon: %d %s", code, out)
	}
	h.WaitFor("the gauge counts it", func() bool {
		_, text := h.Get("/metrics")
		return strings.Contains(text, `imagemanager_unclaimed{kind="file"} 1`)
	})
	h.Check(os.Remove(alien)) // it is still there
	h.WaitFor("the gauge is 0", func() bool {
		_, text := h.Get("/metrics")
		return strings.Contains(text, `imagemanager_unclaimed{kind="file"} 0`)
	})
	h.Stop()
	if out := h.Consumer("reconcile"); !strings.Contains(out, "nothing to do") {
		t.Errorf("reconcile after the daemon: %s", out)
	}
	h.Look()
}

// A pool that was made again without the journal is refused, even with the right name and
// mark. The right pool is accepted again.
func TestWrongPool(t *testing.T) {
	h := newHost(t)
	h.Start()
	img := h.makeFirst()
	h.WaitDrained()
	h.Stop()
	h.Consumer("pool", "detach")
	row, err := h.Store.Pool(t.Context())
	h.Check(err)
	right := row.Metadata + ".right"
	h.Check(os.Rename(row.Metadata, right))
	info, err := os.Stat(right)
	h.Check(err)
	h.Check(os.WriteFile(row.Metadata, nil, 0o600))
	h.Check(os.Truncate(row.Metadata, info.Size()))
	if out, code := h.Try("run"); code != 3 || !strings.Contains(out, "holds no thin pool") {
		t.Errorf("run without a pool: %d %s", code, out)
	}
	if _, err := devmapper.Create(invariants.ConfigOf(row)); !errors.Is(err, devmapper.ErrForeign) {
		t.Errorf("a new pool over data of another: %v", err)
	}
	if now, err := h.Store.Image(t.Context(), img.ID); err != nil || now.State != store.StateActive {
		t.Errorf("the image is touched: %+v %v", now.Progress, err)
	}
	h.Check(os.Rename(right, row.Metadata))
	h.Start()
	h.Stop()
	h.checkReadable(img)
	h.Look()
}

// A start does not rebuild the images of a pool that has lost every device: an operator
// has to look at it first.
func TestPoolWithoutItsDevices(t *testing.T) {
	h := newHost(t)
	h.Start()
	img := h.makeFirst()
	h.WaitDrained()
	h.Stop()
	pool := h.pool()
	for _, id := range []int64{h.snapshots(img.ID)[0].Device, img.Tree.Device} {
		h.Check(errors.Join(pool.Deactivate(devmapper.ID(id)), pool.Delete(devmapper.ID(id))))
	}
	if out, code := h.Try("run"); code != 3 || !strings.Contains(out, "has none of its 2 devices") {
		t.Errorf("run: %d %s", code, out)
	}
	if now := h.image(img.ID); now.State != store.StateActive {
		t.Errorf("the image is touched: %+v", now.Progress)
	}
}

package provision

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"imagemanager.internal/internal/archive/fstree"
	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newHost returns a host without a pool.
func newHost(t *testing.T) *Host {
	t.Helper()
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "c.db"))
	check(t, err)
	t.Cleanup(func() { st.Close() })
	archives, err := download.New(nil, download.Config{Dir: filepath.Join(t.TempDir(), "blobs")})
	check(t, err)
	cfg := Config{
		Prefix: "images/", DeviceBytes: 1 << 30, ManifestDir: filepath.Join(t.TempDir(), "manifests"),
		ViolationDir: filepath.Join(t.TempDir(), "violations"), ViolationBytes: 250,
	}
	record := NewRecorder(st, zerolog.Nop(), NewMetrics(prometheus.NewRegistry()))
	return New(cfg, record, archives, nil)
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// enqueue makes an image.
func enqueue(t *testing.T, h *Host) *Task {
	t.Helper()
	img, _, err := h.store.Enqueue(t.Context(), store.Object{Bucket: "b", Key: "images/a.tar", ETag: "e"})
	check(t, err)
	return &Task{Image: img}
}

// An image with an attempt under way stays, and the error says so.
func TestNotRemoved(t *testing.T) {
	h := newHost(t)
	img := enqueue(t, h).Image
	_, err := h.store.Begin(t.Context(), img.ID, store.StageDownload)
	check(t, err)
	if _, err := h.RemoveImage(t.Context(), img.ID, true); !errors.Is(err, errNotRemoved) {
		t.Errorf("an image that is worked on: %v, want errNotRemoved", err)
	}
	if _, err := h.RemoveImage(t.Context(), img.ID+1, true); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("no image: %v, want ErrNotFound", err)
	}
	if events, err := h.store.History(t.Context(), img.ID); err != nil || len(events) != 2 {
		t.Errorf("events: %+v, %v", events, err)
	}
}

// Setting an archive aside again, as a recovery or a reconcile does, makes no room for it
// once more: that would push out another one.
func TestSetAsideAgain(t *testing.T) {
	h := newHost(t)
	dir := t.TempDir()
	for i := range 2 {
		blob := store.Blob{Path: filepath.Join(dir, fmt.Sprint(i)), SHA256: fmt.Sprint("sum", i), Size: 100}
		check(t, os.WriteFile(blob.Path, make([]byte, 100), 0o600))
		for range 2 {
			check(t, h.setAside(blob))
		}
	}
	if kept, err := os.ReadDir(h.cfg.ViolationDir); err != nil || len(kept) != 2 {
		t.Errorf("kept: %v, %v; there is room for both", kept, err)
	}
	third := store.Blob{Path: filepath.Join(dir, "2"), SHA256: "sum2", Size: 100}
	check(t, os.WriteFile(third.Path, make([]byte, 100), 0o600))
	check(t, h.setAside(third))
	if kept, err := os.ReadDir(h.cfg.ViolationDir); err != nil || len(kept) != 2 {
		t.Errorf("kept: %v, %v; the oldest makes room", kept, err)
	}
}

// A manifest that was written just before its seal is not taken for a leftover: whoever
// looks for leftovers waits for the seal.
func TestManifestBeforeItsSeal(t *testing.T) {
	h := newHost(t)
	ms := h.Manifests
	task := enqueue(t, h)
	if left, err := ms.List(); !errors.Is(err, fs.ErrNotExist) || left != nil {
		t.Errorf("before there is any: %q, %v", left, err)
	}
	written := new(fstree.Inventory)
	name := ms.Name(written.Digest())
	listed, removed := make(chan error, 1), make(chan error, 1) // buffered: they are asked later
	check(t, ms.saveUntil(written, func() error {
		go func() { _, err := ms.List(); listed <- err }()
		go func() { removed <- ms.Remove(t.Context(), name) }()
		waits := time.NewTimer(50 * time.Millisecond)
		defer waits.Stop()
		select {
		case err := <-listed:
			t.Errorf("listed before the seal is recorded: %v", err)
		case err := <-removed:
			t.Errorf("removed before the seal is recorded: %v", err)
		case <-waits.C:
		}
		sealed(t, h, task, &store.Tree{Digest: written.Digest()})
		return nil
	}))
	check(t, errors.Join(<-listed, <-removed))
	if _, err := os.Stat(ms.path(written.Digest())); err != nil {
		t.Errorf("the manifest of a sealed image is gone: %v", err)
	}
	unused := strings.Repeat("0", 64)
	check(t, os.WriteFile(filepath.Join(ms.dir, unused), nil, 0o600))
	check(t, ms.Remove(t.Context(), unused))
	if left, err := ms.List(); err != nil || len(left) != 1 || left[0] != name {
		t.Errorf("left are %q, %v; want %s", left, err, name)
	}
	unlock, err := ms.lock(syscall.LOCK_EX)
	check(t, err)
	unlock() // the save has let go of it
}

// sealed records that the image has a sealed device.
func sealed(t *testing.T, h *Host, task *Task, tree *store.Tree) {
	t.Helper()
	ctx := t.Context()
	check(t, h.record.Begin(ctx, task, store.StageDownload))
	_, err := h.store.FinishDownload(ctx, task.Attempt, store.Blob{Path: "p"})
	check(t, err)
	check(t, h.record.Begin(ctx, task, store.StageUnpack))
	d, err := h.store.Reserve(ctx, task.Attempt, store.Device{Kind: store.DeviceKindImage, Bytes: 1})
	check(t, err)
	tree.Device = d.ID
	check(t, h.record.seal(ctx, task, &d, tree, nil))
}

// Space that one task reserved is not there for another until it is released, in the pool
// and on the disk. A task that would not fit alone is told so at once.
func TestReservations(t *testing.T) {
	dir := t.TempDir()
	_, free, err := FreeUnder(dir)
	check(t, err)
	r := newReservations(nil, 0, func(int64) {})
	r.capacity = func() (devmapper.Status, error) {
		return devmapper.Status{TotalData: 100, TotalMetadata: 1 << 20}, nil
	}
	for name, n := range map[string]need{"pool": {pool: 60}, "disk": {dir: dir, disk: free/2 + 1<<20}} {
		release, err := r.reserve(t.Context(), n)
		check(t, err)
		short, alone, _, err := r.try(n)
		if short == nil || alone || err != nil {
			t.Errorf("%s: the space was given twice: %v, alone %t, %v", name, short, alone, err)
		}
		release()
		again, err := r.reserve(t.Context(), n)
		if err != nil {
			t.Errorf("%s: what was released is not there: %v", name, err)
			continue
		}
		again()
	}
	if _, err := r.reserve(t.Context(), need{pool: 101}); !errors.Is(err, ErrPoolLow) {
		t.Errorf("more than the pool has: %v", err)
	}
	if _, err := r.reserve(t.Context(), need{dir: dir, disk: 2 * free}); !errors.Is(err, ErrDiskLow) {
		t.Errorf("more than the disk has: %v", err)
	}
}

// From the moment an attempt has a device, its lines name it. The next attempt begins
// without one.
func TestLogNamesTheDevice(t *testing.T) {
	h := newHost(t)
	var log bytes.Buffer
	h.record.log = zerolog.New(&log)
	task := enqueue(t, h)
	ctx := t.Context()
	check(t, h.record.Begin(ctx, task, store.StageDownload))
	_, err := h.store.FinishDownload(ctx, task.Attempt, store.Blob{Path: "p"})
	check(t, err)
	check(t, h.record.Begin(ctx, task, store.StageUnpack))
	d, err := h.record.reserve(ctx, task, store.Device{Kind: store.DeviceKindImage, Bytes: 1})
	check(t, err)
	named := fmt.Sprintf(`"device_id":%d`, d.ID)
	for _, want := range []string{`"device_state":"reserved"`, named} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("%s is missing in %s", want, &log)
		}
	}
	log.Reset()
	h.record.Log(task).Warn().Msg("it fails")
	if strings.Count(log.String(), named) != 1 {
		t.Errorf("the device is missing, or there twice: %s", &log)
	}
	h.record.Undo(ctx, task, "stopped")
	check(t, h.record.Begin(ctx, task, store.StageUnpack))
	log.Reset()
	h.record.Log(task).Warn().Msg("it fails")
	if strings.Contains(log.String(), "device_id") {
		t.Errorf("the device is another attempt's: %s", &log)
	}
}

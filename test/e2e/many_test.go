package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
	tarballs "imagemanager.internal/test/images"
)

// After a boot no snapshot is active. The daemon takes work at once and says how far it
// is; meanwhile images are made, a message about an image is answered when its snapshot
// is active, and `consumer rm` works. Killed in between, it goes on with the rest.
func TestWorkBeforeSnapshotsAreActive(t *testing.T) {
	h := newHost(t)
	body := tarballs.RootFS("hello", 3)
	h.Start()
	var images []store.Image
	for i := range 4 {
		h.put(fmt.Sprintf("images/%d.tar", i), body)
		images = append(images, h.WaitActive(fmt.Sprintf("images/%d.tar", i)))
	}
	h.WaitDrained()
	h.Stop()
	var paths []string
	for _, img := range images {
		paths = append(paths, h.snapshots(img.ID)[0].Path)
	}
	h.Consumer("pool", "detach")

	o := h.startHeld("before:activations")
	o.waitPassed(1)
	h.expectReady("ok\nactivating snapshots: 0 of 4\n")
	h.expectOutput("activating after the start: 0 of 4 done", "status", "--listen", h.Address())
	h.expectActive(paths, false, false, false, false)
	h.put("images/new.tar", body)
	h.WaitActive("images/new.tar")
	h.WaitDrained()
	events := h.events(images[0].ID)
	h.send(message(record("ObjectCreated:Put", h.Cloud.Name, "images/0.tar", md5Hex(body))))
	h.WaitDrained()
	h.expectActive(paths, true, false, false, false)
	if now := h.events(images[0].ID); now != events {
		t.Errorf("the message made %d events", now-events)
	}
	h.expectReady("ok\nactivating snapshots: 1 of 4\n")
	h.Kill()

	o = h.startHeld("before:activations")
	o.waitPassed(2)
	h.expectReady("ok\nactivating snapshots: 0 of 3\n")
	h.Consumer("verify", "images/3.tar")
	h.Consumer("rm", "--force", "images/1.tar")
	o.release()
	h.WaitRunning()
	h.expectReady("ok\n")
	h.expectActive(paths, true, false, true, true)
	h.Stop()
	h.Look()
}

// expectReady wants /readyz to say so.
func (h *host) expectReady(want string) {
	h.T.Helper()
	if code, text := h.GetEarly("/readyz"); code != http.StatusOK || text != want {
		h.T.Errorf("/readyz: %d %q, want %q", code, text, want)
	}
}

// expectActive wants devices at the paths, or none.
func (h *host) expectActive(paths []string, want ...bool) {
	h.T.Helper()
	for i, path := range paths {
		if _, err := os.Stat(path); (err == nil) != want[i] {
			h.T.Errorf("%s: %v, want it active: %t", path, err, want[i])
		}
	}
}

// A start asks the kernel as little for each image as it must, and the start after a boot
// as little until it takes work. CIM_IMAGES sets how many there are; with more, the times
// in the output tell.
func TestStartWithManyImages(t *testing.T) {
	n, duplicates := 20, 40
	for name, v := range map[string]*int{"CIM_IMAGES": &n, "CIM_DUPLICATES": &duplicates} {
		if i, err := strconv.Atoi(os.Getenv(name)); err == nil {
			*v = i
		}
	}
	h := bareHost(t)
	h.install(poolName(t), "4GiB", []string{"RECONCILE_INTERVAL=0"}, "--thins", fmt.Sprint(100+4*n))
	objects := h.seed(n)
	for _, what := range []string{"all are active", "none is active"} {
		if what != "all are active" {
			h.Consumer("pool", "detach")
		}
		began := time.Now()
		h.Start()
		h.WaitFor("the daemon takes work", h.takesWork)
		ready, asked := time.Since(began), h.ioctls()
		h.WaitRunning()
		t.Logf("%d images, %s: takes work after %s, all active after %s; until then %g ioctls",
			n, what, ready, time.Since(began), asked)
		if per := (asked - 60) / float64(n); per > 2 && what == "all are active" {
			t.Errorf("%g ioctls for %d images, %.1f for each", asked, n, per)
		}
		for _, some := range [][]store.Object{objects[:1], objects} {
			used, began := h.cpu(), time.Now()
			h.sendAbout(some, duplicates)
			t.Logf("duplicates about %d of the images: %.0f a second, %s of CPU each", len(some),
				float64(duplicates)/time.Since(began).Seconds(), (h.cpu()-used)/time.Duration(duplicates))
		}
		h.Stop()
	}
}

// takesWork reports whether the daemon started last takes messages. Snapshots may still
// be inactive.
func (h *host) takesWork() bool {
	h.T.Helper()
	return strings.Contains(string(h.NewestLog()), `"message":"running"`)
}

// cpu is the time that the daemon has worked.
func (h *host) cpu() time.Duration {
	h.T.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", h.PID()))
	h.Check(err)
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var ticks int64
	for _, f := range fields[11:13] { // utime and stime of proc_pid_stat(5), in hundredths of a second
		n, err := strconv.ParseInt(f, 10, 64)
		h.Check(err)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// ioctls counts what the daemon has asked the device-mapper.
func (h *host) ioctls() (sum float64) {
	h.T.Helper()
	_, text := h.GetEarly("/metrics")
	for line := range strings.Lines(text) {
		if rest, is := strings.CutPrefix(line, "imagemanager_dm_ioctl_duration_seconds_count{"); is {
			_, count, _ := strings.Cut(rest, "} ")
			n, err := strconv.ParseFloat(strings.TrimSpace(count), 64)
			h.Check(err)
			sum += n
		}
	}
	return sum
}

// sendAbout sends n messages about the objects in turn, and waits until all are settled.
func (h *host) sendAbout(objects []store.Object, n int) {
	h.T.Helper()
	h.sendEach(n, func(i int) string {
		o := objects[i%len(objects)]
		return message(record("ObjectCreated:Put", o.Bucket, o.Key, o.ETag))
	})
}

// seed makes n active images, without archives of any content: journal, pool and files
// are as after so many uploads.
func (h *host) seed(n int) (objects []store.Object) {
	h.T.Helper()
	pool := h.pool()
	for _, dir := range []string{"blobs", "manifests"} {
		h.Check(os.MkdirAll(filepath.Join(h.State, dir), 0o700))
	}
	for i := range n {
		o := store.Object{
			Bucket: h.Cloud.Name, Key: fmt.Sprintf("images/team-%02d/app-%05d.tar", i%50, i),
			ETag: fmt.Sprintf("%032x", i), Size: 5,
		}
		h.seedOne(pool, o)
		objects = append(objects, o)
	}
	return objects
}

func (h *host) seedOne(pool *devmapper.Pool, o store.Object) {
	h.T.Helper()
	const bytes = 256 << 20
	ctx := h.T.Context()
	img, _, err := h.Store.Enqueue(ctx, o)
	h.Check(err)
	begin := func(st store.Stage) store.Attempt {
		a, err := h.Store.Begin(ctx, img.ID, st)
		h.Check(err)
		return a
	}
	_, err = h.Store.FinishDownload(ctx, begin(store.StageDownload), h.seedArchive(img.ID))
	h.Check(err)
	a := begin(store.StageUnpack)
	d, err := h.Store.Reserve(ctx, a, store.Device{Kind: store.DeviceKindImage, Bytes: bytes, FSUUID: "x"})
	h.Check(err)
	h.Check(pool.CreateThin(devmapper.ID(d.ID)))
	sum := sha256.Sum256([]byte(o.Key))
	digest := hex.EncodeToString(sum[:])
	h.Check(os.WriteFile(filepath.Join(h.State, "manifests", digest), nil, 0o600))
	tree := store.Tree{Device: d.ID, Shape: "plain", Policy: "distro", Digest: "sha256:" + digest, Entries: 1, Files: 1}
	_, err = h.Store.Seal(ctx, a, d, tree, nil)
	h.Check(err)
	_, err = h.Store.FinishUnpack(ctx, a, d)
	h.Check(err)
	a = begin(store.StageActivate)
	sn, err := h.Store.Reserve(ctx, a,
		store.Device{Kind: store.DeviceKindSnapshot, Bytes: bytes, Origin: d.ID, FSUUID: "x"})
	h.Check(err)
	h.Check(pool.CreateSnapshot(devmapper.ID(sn.ID), devmapper.ID(d.ID)))
	path, err := pool.Activate(devmapper.ID(sn.ID), devmapper.KindSnapshot, bytes, false)
	h.Check(err)
	_, err = h.Store.FinishActivate(ctx, a, sn, time.Now(), path)
	h.Check(err)
}

func (h *host) seedArchive(image int64) store.Blob {
	h.T.Helper()
	path := filepath.Join(h.State, "blobs", fmt.Sprintf("%d.tar", image))
	h.Check(os.WriteFile(path, []byte("hello"), 0o600))
	info, err := os.Stat(path)
	h.Check(err)
	st, _ := info.Sys().(*syscall.Stat_t)
	sum := sha256.Sum256([]byte("hello"))
	return store.Blob{
		Path: path, SHA256: hex.EncodeToString(sum[:]), Size: info.Size(), Inode: st.Ino, ModTime: info.ModTime(),
	}
}

package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
	"imagemanager.internal/test/disks"
)

// big is a file of so many MiB.
func big(mib int) entry {
	return entry{name: "var/big", body: strings.Repeat("0123456789abcdef", mib<<16), mode: 0o644}
}

// pauses waits for /readyz to say why nothing is taken, and checks how long after since that was logged.
func (h *host) pauses(since time.Time, why string) {
	h.t.Helper()
	h.eventually("/readyz says "+why, func() bool {
		code, text := h.get("/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(text, why)
	})
	h.t.Logf("/readyz says it %s after the cause", time.Since(since).Round(time.Millisecond))
}

// resumes waits for /readyz to say that work is taken.
func (h *host) resumes() {
	h.t.Helper()
	h.eventually("/readyz says ok", func() bool {
		code, _ := h.get("/readyz")
		return code == http.StatusOK
	})
}

// serves checks that the image's snapshot reads as it should.
func (h *host) serves(img store.Image) {
	h.t.Helper()
	snapshots, err := h.store.SnapshotsOf(h.t.Context(), img.ID)
	h.check(err)
	if len(snapshots) != 1 {
		h.t.Fatalf("%d snapshots", len(snapshots))
	}
	if got := h.hello(snapshots[0].Path); got != "hello" {
		h.t.Errorf("the snapshot reads %q", got)
	}
}

// uncounted checks that no failure was counted against a key's image.
func (h *host) uncounted(key string) {
	h.t.Helper()
	for _, reason := range h.failures(key) {
		h.t.Errorf("%s: counted: %s", key, reason)
	}
}

// A pool whose data run full under an unpack, because somebody else writes, fails the attempt without counting it; intake pauses, the
// running snapshot serves on, and once the pool is grown the image is made.
func TestPoolFullInUnpack(t *testing.T) {
	h := newSizedHost(t, "192MiB")
	pool := h.pool()
	h.start()
	img := h.first()
	h.check(pool.CreateThin(1000))
	h.unclaimed["thin_device"] = 1
	path, err := pool.Activate(1000, devmapper.KindSnapshot, 1<<30, false)
	h.check(err)
	h.put("images/b.tar", rootfs("world", 1500, big(60)))
	h.reaches("images/b.tar", "step unpack formatted")
	h.check(h.daemon.Process.Signal(syscall.SIGSTOP)) // it is not to be faster
	exhaust(t, path)
	h.check(h.daemon.Process.Signal(syscall.SIGCONT))
	since := time.Now()
	h.pauses(since, "`consumer pool grow --data-size`")
	h.serves(img)
	h.reaches("images/b.tar", "undone unpack")
	h.consumer("pool", "grow", "--data-size", "1GiB")
	h.active("images/b.tar")
	h.resumes()
	h.uncounted("images/b.tar")
	h.check(pool.Discard(1000))
	h.check(pool.Deactivate(1000))
	h.drained()
	h.check(pool.Delete(1000))
	h.unclaimed["thin_device"] = manyForeign
	h.stop()
	h.consumer("verify", "--all")
	h.whole()
}

// first makes an image that is active, and stays so whatever happens.
func (h *host) first() store.Image {
	h.t.Helper()
	h.put("images/a.tar", rootfs("hello", 3))
	return h.active("images/a.tar")
}

// exhaust writes to a device until that fails.
func exhaust(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|syscall.O_SYNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf := []byte(strings.Repeat("full", 256<<10))
	for err == nil {
		_, err = f.Write(buf)
	}
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
}

// A pool whose metadata run full takes no changes at all. Intake pauses and says so, the running snapshot serves on; `pool repair` on the
// stopped pool makes room, and the image is made.
func TestMetadataFull(t *testing.T) {
	h := bareHost(t)
	h.install(poolName(t), "8GiB", []string{"POOL_MIN_FREE_METADATA=0"}, "--metadata-size", "2MiB")
	pool := h.pool()
	h.start()
	img := h.first()
	h.drained()
	exhaustMetadata(h, pool)
	since := time.Now()
	h.pauses(since, "`consumer pool repair`")
	h.serves(img)
	h.put("images/b.tar", rootfs("world", 3))
	h.stop()
	h.consumer("pool", "repair", "--metadata-size", "32MiB")
	pool = h.pool()
	var err error
	for id := devmapper.ID(1000); err == nil; id++ {
		err = pool.Delete(id)
	}
	if !errors.Is(err, devmapper.ErrNotFound) {
		t.Fatal(err)
	}
	h.unclaimed["thin_device"] = 0
	h.start()
	h.active("images/b.tar")
	h.uncounted("images/b.tar")
	h.drained()
	h.stop()
	h.serves(img)
	h.whole()
}

// exhaustMetadata makes thin devices until the metadata are full.
func exhaustMetadata(h *host, pool *devmapper.Pool) {
	h.t.Helper()
	h.unclaimed["thin_device"] = manyForeign
	for id := devmapper.ID(1000); ; id++ {
		err := pool.CreateThin(id)
		if errors.Is(err, devmapper.ErrReadOnly) {
			return
		}
		h.check(err)
	}
}

// smallHost is a host whose state directory is a file system of its own, so small that it can be filled, and does not hold the pool.
func smallHost(t *testing.T, env ...string) (h *host, filler string) {
	t.Helper()
	h = bareHost(t)
	files, dir := t.TempDir(), filepath.Join(h.dir, "state")
	disk := disks.Loop(t, filepath.Join(files, "state"), 200<<20)
	disks.Run(t, "mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", disk)
	h.check(os.Mkdir(dir, 0o700))
	h.check(syscall.Mount(disk, dir, "ext4", 0, ""))
	t.Cleanup(func() { h.check(syscall.Unmount(dir, 0)) })
	h.install(poolName(t), "2GiB", env, "--data", filepath.Join(files, "data"), "--metadata", filepath.Join(files, "metadata"))
	return h, filepath.Join(dir, "filler")
}

// fillUp writes a file until the file system has only so many bytes left.
func fillUp(h *host, filler string, leave int64) {
	h.t.Helper()
	f, err := os.Create(filler)
	h.check(err)
	defer f.Close()
	for chunk := int64(1 << 20); chunk >= 4<<10; {
		var s syscall.Statfs_t
		h.check(syscall.Fstatfs(int(f.Fd()), &s))
		if int64(s.Bavail)*s.Bsize <= leave+chunk {
			chunk /= 2
			continue
		}
		if _, err := f.Write(make([]byte, chunk)); err != nil {
			h.check(f.Sync())
			return
		}
	}
	h.check(f.Sync())
}

// A disk that is low on space under archives and database pauses intake before it is full, and once there is room again all goes on.
func TestDiskLow(t *testing.T) {
	h, filler := smallHost(t, "STATE_MIN_FREE=64MiB")
	h.start()
	img := h.first()
	h.drained()
	fillUp(h, filler, 32<<20)
	since := time.Now()
	h.pauses(since, "STATE_MIN_FREE")
	h.put("images/b.tar", rootfs("world", 3))
	h.serves(img)
	h.check(os.Remove(filler))
	h.active("images/b.tar")
	h.resumes()
	h.uncounted("images/b.tar")
	h.drained()
	h.stop()
	h.whole()
}

// Without any reserve the disk under archives and database fills up to the last byte in the middle of the work. Nothing is lost, nothing is
// counted, the snapshot serves on, and once there is room again all goes on by itself.
func TestDiskFull(t *testing.T) {
	h, filler := smallHost(t, "STATE_MIN_FREE=0")
	h.start()
	img := h.first()
	h.drained()
	since := time.Now()
	fillUp(h, filler, 0)
	for i := range 3 {
		h.put(fmt.Sprintf("images/b%d.tar", i), rootfs("world", 300))
	}
	h.pauses(since, "database cannot be written")
	h.serves(img)
	h.check(os.Remove(filler))
	for i := range 3 {
		h.active(fmt.Sprintf("images/b%d.tar", i))
	}
	h.resumes()
	h.drained()
	h.stop()
	h.whole()
}

// Two images that fit the pool one at a time are not begun together: the second is put off before its device is made, and nothing runs
// full. With a larger pool it is made.
func TestReservation(t *testing.T) {
	h := newSizedHost(t, "96MiB", "POOL_MIN_FREE_DATA=0", "MAX_ATTEMPTS=1000")
	h.start()
	for _, key := range []string{"images/a.tar", "images/b.tar"} {
		h.put(key, rootfs("hello", 3, big(50)))
	}
	h.eventually("one is active and one put off", func() bool { return h.count(store.Active) == 1 && h.putOff() > 0 })
	h.consumer("pool", "grow", "--data-size", "1GiB")
	h.eventually("both are active", func() bool { return h.count(store.Active) == 2 })
	h.drained()
	h.stop()
	h.whole()
}

// count counts the images in a state.
func (h *host) count(st store.State) int {
	h.t.Helper()
	counts, err := h.store.Counts(h.t.Context())
	h.check(err)
	return counts[st]
}

// putOff counts the failed attempts of both images, which must all say that there is no room for the image.
func (h *host) putOff() int {
	h.t.Helper()
	reasons := append(h.failures("images/a.tar"), h.failures("images/b.tar")...)
	for _, reason := range reasons {
		if !strings.Contains(reason, "thin pool is low on space: the image needs about") {
			h.t.Error(reason)
		}
	}
	return len(reasons)
}

package e2e

import (
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "github.com/mattn/go-sqlite3" // registers the driver "sqlite3"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
	"imagemanager.internal/test/disks"
	tarballs "imagemanager.internal/test/images"
)

// big returns a file of that many MiB.
func big(mib int) tarballs.Entry {
	return tarballs.Entry{Name: "var/big", Body: strings.Repeat("0123456789abcdef", mib<<16), Mode: 0o644}
}

// waitPaused waits for /readyz to say why intake is paused, and checks how long after
// since this was logged.
func (h *host) waitPaused(since time.Time, why string) {
	h.T.Helper()
	h.WaitFor("/readyz says "+why, func() bool {
		code, text := h.Get("/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(text, why)
	})
	h.T.Logf("/readyz says it %s after the cause", time.Since(since).Round(time.Millisecond))
}

// waitResumed waits for /readyz to say that intake runs.
func (h *host) waitResumed() {
	h.T.Helper()
	h.WaitFor("/readyz says ok", func() bool {
		code, _ := h.Get("/readyz")
		return code == http.StatusOK
	})
}

// checkReadable checks that the image has one snapshot with the right content.
func (h *host) checkReadable(img store.Image) {
	h.T.Helper()
	snapshots, err := h.Store.SnapshotsOf(h.T.Context(), img.ID)
	h.Check(err)
	if len(snapshots) != 1 {
		h.T.Fatalf("%d snapshots", len(snapshots))
	}
	if got := h.readHello(snapshots[0].Path); got != "hello" {
		h.T.Errorf("the snapshot reads %q", got)
	}
}

// checkNoFailures checks that no failure was counted against a key's image.
func (h *host) checkNoFailures(key string) {
	h.T.Helper()
	for _, reason := range h.failures(key) {
		h.T.Errorf("%s: counted: %s", key, reason)
	}
}

// A pool whose data run full under an unpack, because somebody else writes, fails the
// attempt without counting it; intake pauses, the running snapshot serves on, and once
// the pool is grown the image is made.
func TestPoolFullInUnpack(t *testing.T) {
	h := newSizedHost(t, "192MiB")
	pool := h.pool()
	h.Start()
	img := h.makeFirst()
	h.Check(pool.CreateThin(1000))
	h.unclaimed["thin_device"] = 1
	path, err := pool.Activate(1000, devmapper.KindSnapshot, 1<<30, false)
	h.Check(err)
	h.put("images/b.tar", tarballs.RootFS("world", 1500, big(60)))
	h.waitEvent("images/b.tar", "step unpack formatted")
	h.Signal(syscall.SIGSTOP) // it is not to be faster
	fillDevice(t, path)
	h.Signal(syscall.SIGCONT)
	since := time.Now()
	h.waitPaused(since, "`consumer pool grow --data-size`")
	h.checkReadable(img)
	h.waitEvent("images/b.tar", "undone unpack")
	h.Consumer("pool", "grow", "--data-size", "1GiB")
	h.WaitActive("images/b.tar")
	h.waitResumed()
	h.checkNoFailures("images/b.tar")
	h.Check(pool.Discard(1000))
	h.Check(pool.Deactivate(1000))
	h.WaitDrained()
	h.Check(pool.Delete(1000))
	h.unclaimed["thin_device"] = manyForeign
	h.Stop()
	h.Consumer("verify", "--all")
	h.Look()
}

// makeFirst makes images/a.tar, an active image that must stay active in the test.
func (h *host) makeFirst() store.Image {
	h.T.Helper()
	h.put("images/a.tar", tarballs.RootFS("hello", 3))
	return h.WaitActive("images/a.tar")
}

// fillDevice writes to a device until a write fails.
func fillDevice(t *testing.T, path string) {
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

// A pool whose metadata run full takes no changes at all. Intake pauses and says so, the
// running snapshot serves on; `pool repair` on the stopped pool makes room, and the image
// is made.
func TestMetadataFull(t *testing.T) {
	h := bareHost(t)
	h.install(poolName(t), "8GiB", []string{"POOL_MIN_FREE_METADATA=0"}, "--metadata-size", "2MiB")
	pool := h.pool()
	h.Start()
	img := h.makeFirst()
	h.WaitDrained()
	fillMetadata(h, pool)
	since := time.Now()
	h.waitPaused(since, "`consumer pool repair`")
	h.checkReadable(img)
	h.put("images/b.tar", tarballs.RootFS("world", 3))
	h.Stop()
	h.Consumer("pool", "repair", "--metadata-size", "32MiB")
	pool = h.pool()
	var err error
	for id := devmapper.ID(1000); err == nil; id++ {
		err = pool.Delete(id)
	}
	if !errors.Is(err, devmapper.ErrNotFound) {
		t.Fatal(err)
	}
	h.unclaimed["thin_device"] = 0
	h.Start()
	h.WaitActive("images/b.tar")
	h.checkNoFailures("images/b.tar")
	h.WaitDrained()
	h.Stop()
	h.checkReadable(img)
	h.Look()
}

// fillMetadata makes thin devices until the metadata are full.
func fillMetadata(h *host, pool *devmapper.Pool) {
	h.T.Helper()
	h.unclaimed["thin_device"] = manyForeign
	for id := devmapper.ID(1000); ; id++ {
		err := pool.CreateThin(id)
		if errors.Is(err, devmapper.ErrReadOnly) {
			return
		}
		h.Check(err)
	}
}

// newSmallStateHost is a host whose state directory is a file system of its own, so small
// that it can be filled, and does not hold the pool.
func newSmallStateHost(t *testing.T, env ...string) (h *host, filler string) {
	t.Helper()
	h = bareHost(t)
	files, dir := t.TempDir(), filepath.Join(h.dir(), "state")
	disk := disks.Loop(t, filepath.Join(files, "state"), 200<<20)
	disks.Run(t, "mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", disk)
	h.Check(os.Mkdir(dir, 0o700))
	h.Check(syscall.Mount(disk, dir, "ext4", 0, ""))
	t.Cleanup(func() { h.Check(syscall.Unmount(dir, 0)) })
	h.install(poolName(t), "2GiB", env, "--data", filepath.Join(files, "data"), "--metadata",
		filepath.Join(files, "metadata"))
	return h, filepath.Join(dir, "filler")
}

// fillDiskUpTo writes a file until the file system has only leave bytes left.
func fillDiskUpTo(h *host, filler string, leave int64) {
	h.T.Helper()
	f, err := os.Create(filler)
	h.Check(err)
	defer f.Close()
	for chunk := int64(1 << 20); chunk >= 4<<10; {
		var s syscall.Statfs_t
		h.Check(syscall.Fstatfs(int(f.Fd()), &s))
		if int64(s.Bavail)*s.Bsize <= leave+chunk {
			chunk /= 2
			continue
		}
		if _, err := f.Write(make([]byte, chunk)); err != nil {
			h.Check(f.Sync())
			return
		}
	}
	h.Check(f.Sync())
}

// A disk that is low on space under archives and database pauses intake before it is
// full, and once there is room again all goes on.
func TestDiskLow(t *testing.T) {
	h, filler := newSmallStateHost(t, "STATE_MIN_FREE=64MiB")
	h.Start()
	img := h.makeFirst()
	h.WaitDrained()
	fillDiskUpTo(h, filler, 32<<20)
	since := time.Now()
	h.waitPaused(since, "STATE_MIN_FREE")
	h.put("images/b.tar", tarballs.RootFS("world", 3))
	h.checkReadable(img)
	h.Check(os.Remove(filler))
	h.WaitActive("images/b.tar")
	h.waitResumed()
	h.checkNoFailures("images/b.tar")
	h.WaitDrained()
	h.Stop()
	h.Look()
}

// Without any reserve the disk under archives and database fills up to the last byte in
// the middle of the work. Nothing is lost, nothing is counted, the snapshot serves on,
// and once there is room again all goes on by itself.
func TestDiskFull(t *testing.T) {
	h, filler := newSmallStateHost(t, "STATE_MIN_FREE=0")
	h.Start()
	img := h.makeFirst()
	h.WaitDrained()
	since := time.Now()
	fillDiskUpTo(h, filler, 0)
	for i := range 3 {
		h.put(fmt.Sprintf("images/b%d.tar", i), tarballs.RootFS("world", 300))
	}
	h.waitPaused(since, "disk is low on space")
	h.checkReadable(img)
	h.Check(os.Remove(filler))
	for i := range 3 {
		h.WaitActive(fmt.Sprintf("images/b%d.tar", i))
	}
	h.waitResumed()
	h.WaitDrained()
	h.Stop()
	h.Look()
}

// Two images that fit the pool one at a time are not begun together: the second is put
// off before its device is made, and nothing runs full. With a larger pool it is made.
func TestReservation(t *testing.T) {
	h := newSizedHost(t, "96MiB", "POOL_MIN_FREE_DATA=0", "MAX_ATTEMPTS=1000")
	h.Start()
	for _, key := range []string{"images/a.tar", "images/b.tar"} {
		h.put(key, tarballs.RootFS("hello", 3, big(50)))
	}
	h.WaitFor("one is active and one put off",
		func() bool { return h.countImages(store.StateActive) == 1 && h.countPostponed() > 0 })
	h.Consumer("pool", "grow", "--data-size", "1GiB")
	h.WaitFor("both are active", func() bool { return h.countImages(store.StateActive) == 2 })
	h.WaitDrained()
	h.Stop()
	h.Look()
}

// countImages counts the images in a state.
func (h *host) countImages(st store.State) int {
	h.T.Helper()
	counts, err := h.Store.Counts(h.T.Context())
	h.Check(err)
	return counts[st]
}

// countPostponed counts the failed attempts of both images. Each must say that the pool
// is low on space.
func (h *host) countPostponed() int {
	h.T.Helper()
	reasons := append(h.failures("images/a.tar"), h.failures("images/b.tar")...)
	for _, reason := range reasons {
		if !strings.Contains(reason, "thin pool is low on space: the image needs about") {
			h.T.Error(reason)
		}
	}
	return len(reasons)
}

// Another program holds the database's write lock for longer than the daemon waits for
// it: no failure is counted, and every image is made afterwards.
func TestDatabaseLocked(t *testing.T) {
	h := newHost(t, "MAX_ATTEMPTS=1")
	h.Start()
	h.makeFirst()
	h.WaitDrained()
	db, err := sql.Open("sqlite3", h.Database())
	h.Check(err)
	defer db.Close()
	conn, err := db.Conn(t.Context())
	h.Check(err)
	exec := func(text string) {
		t.Helper()
		_, err := conn.ExecContext(t.Context(), text)
		h.Check(err)
	}
	exec("PRAGMA busy_timeout = 30000")
	exec("BEGIN IMMEDIATE")
	keys := []string{"images/1.tar", "images/2.tar", "images/3.tar"}
	for _, key := range keys {
		h.put(key, tarballs.RootFS("hello", 3))
	}
	h.waitLogged("journal cannot be written; message returned", 2)
	exec("ROLLBACK")
	h.Check(conn.Close())
	for _, key := range keys {
		h.WaitActive(key)
		h.checkNoFailures(key)
	}
	h.WaitDrained()
	h.Stop()
	h.Look()
}

package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/store"
	"imagemanager.internal/test/disks"
	tarballs "imagemanager.internal/test/images"
	"imagemanager.internal/test/invariants"
)

// flaky is a disk whose writes fail when it is told so. Reads go on.
type flaky struct {
	t    *testing.T
	name string
	loop string
	size int64
	path string
}

func newFlaky(t *testing.T, name string, size int64) *flaky {
	t.Helper()
	f := &flaky{t: t, name: "flaky-" + name, size: size}
	f.loop = disks.Loop(t, filepath.Join(t.TempDir(), name), size)
	f.path = disks.Map(t, f.name, disks.Linear(f.loop, 0, size))
	return f
}

func (f *flaky) fail() { f.t.Helper(); disks.Swap(f.t, f.name, disks.FailWrites(f.loop, f.size)) }
func (f *flaky) heal() { f.t.Helper(); disks.Swap(f.t, f.name, disks.Linear(f.loop, 0, f.size)) }

// newFlakyHost is a host whose pool lies on two flaky disks.
func newFlakyHost(t *testing.T, env ...string) (h *host, data, metadata *flaky) {
	t.Helper()
	h = bareHost(t)
	data, metadata = newFlaky(t, "data", 2<<30), newFlaky(t, "metadata", 8<<20)
	h.install(poolName(t), "2GiB", env, "--data", data.path, "--metadata", metadata.path)
	return h, data, metadata
}

// smallFiles returns an image of n files of 64 KiB, each with a text of its own.
func smallFiles(text string, n int) []byte {
	var more []tarballs.Entry
	for i := range n {
		line := fmt.Sprintf("%s %06d ", text, i)
		more = append(more, tarballs.Entry{
			Name: fmt.Sprintf("var/%06d", i),
			Body: strings.Repeat(line, 64<<10/len(line)), Mode: 0o644,
		})
	}
	return tarballs.RootFS(text, 3, more...)
}

// openKernelLog opens the kernel's log at its end.
func openKernelLog(t *testing.T) *os.File {
	t.Helper()
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Seek(fd, 0, io.SeekEnd); err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "kmsg")
	t.Cleanup(func() { f.Close() })
	return f
}

// File data that are lost while the archive is still being extracted through a mount, on
// a disk that is well again before the file system is synced, are not forgotten: the
// attempt fails for that reason, and the next one ends with the whole image.
func TestDataWritesFail(t *testing.T) {
	const key = "images/a.tar"
	kernel := openKernelLog(t)
	h, data := newHostWithBadRange(t, key, "UNPACK_ENGINE=mounted")
	line, lost := make([]byte, 8192), regexp.MustCompile(`I/O error.* writing to inode`)
	h.WaitFor("file data are lost", func() bool {
		n, _ := unix.Read(int(kernel.Fd()), line) // EAGAIN: nothing new
		return n > 0 && lost.Match(line[:n])
	})
	data.heal()
	h.WaitActive(key)
	reasons := h.failures(key)
	t.Logf("attempts failed: %q", reasons)
	if len(reasons) == 0 || !strings.Contains(reasons[0], "early write-back") {
		t.Error("no attempt failed because of its early write-back")
	}
	h.checkVerified()
}

// newHostWithBadRange is a host to whose queue an image was put, and whose data disk
// fails behind mkfs's blocks and before those of 32 MiB of files.
func newHostWithBadRange(t *testing.T, key string, env ...string) (*host, *flaky) {
	t.Helper()
	h, data, _ := newFlakyHost(t, env...)
	h.Start()
	h.WaitRunning()
	disks.Swap(t, data.name, disks.FailRange(data.loop, data.size, 12<<20, 24<<20))
	h.put(key, smallFiles(key, 1100))
	return h, data
}

// checkVerified stops the daemon and has all images verified.
func (h *host) checkVerified() {
	h.T.Helper()
	h.WaitDrained()
	h.Stop()
	h.Consumer("verify", "--all")
	h.Look()
}

// A write to the device that fails in the middle of an image fails the attempt at once.
// It says where, and the next one ends with the whole image once the disk is well.
func TestDirectWriteFails(t *testing.T) {
	const key = "images/a.tar"
	h, data := newHostWithBadRange(t, key)
	h.WaitFor("an attempt fails", func() bool { return len(h.failures(key)) > 0 })
	data.heal()
	h.WaitActive(key)
	if reason := h.failures(key)[0]; !strings.Contains(reason, "bytes at byte") ||
		!strings.Contains(reason, "input/output error") {
		t.Errorf("the attempt failed for %q", reason)
	}
	h.checkVerified()
}

// failures returns the reasons for which attempts at a key's image have failed.
func (h *host) failures(key string) (reasons []string) {
	h.T.Helper()
	images, err := h.Store.ByKey(h.T.Context(), key)
	h.Check(err)
	for _, img := range images {
		events, err := h.Store.History(h.T.Context(), img.ID)
		h.Check(err)
		for _, e := range events {
			if e.Kind == store.EventFailed {
				reasons = append(reasons, e.Reason)
			}
		}
	}
	return reasons
}

// A pool whose metadata cannot be written, or whose data cannot be flushed, goes
// read-only in the middle of an image: intake pauses and says what to do, the snapshot
// that runs is served on, and after the repair the image is finished.
func TestPoolWritesFail(t *testing.T) {
	for _, which := range []string{"metadata", "data"} {
		t.Run(which, func(t *testing.T) { poolWritesFail(t, which) })
	}
}

func poolWritesFail(t *testing.T, which string) {
	h, data, metadata := newFlakyHost(t)
	disk := map[string]*flaky{"data": data, "metadata": metadata}[which]
	h.Start()
	h.put("images/first.tar", tarballs.RootFS("hello", 3))
	first := h.WaitActive("images/first.tar")
	h.WaitDrained()
	h.put("images/second.tar", smallFiles("second", 400))
	h.waitEvent("images/second.tar", "step unpack formatted")
	disk.fail()
	h.WaitFor("the daemon is not ready and names the remedy", func() bool {
		code, text := h.Get("/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(text, "consumer pool repair")
	})
	h.waitLogged("intake paused", 1)
	h.put("images/third.tar", tarballs.RootFS("third", 3))
	snapshots, err := h.Store.SnapshotsOf(t.Context(), first.ID)
	h.Check(err)
	got, err := invariants.ReadFile(snapshots[0].Path, "rootfs/etc/hello")
	switch status := disks.Run(t, "dmsetup", "status", "--noflush", "cim-"+poolName(t)+"-pool"); {
	case err != nil && strings.Contains(status, "Fail"):
		// it may, when its metadata cannot be written: then nothing is read any more
		t.Logf("the kernel has given the whole pool up: %v", err)
	case err != nil || string(got) != "hello":
		t.Errorf("the running snapshot reads %q, %v; the pool: %s", got, err, status)
	}
	if images, err := h.Store.ByKey(t.Context(), "images/third.tar"); err != nil || len(images) != 0 {
		t.Errorf("taken although the pool takes no changes: %+v %v", images, err)
	}
	t.Logf("attempts failed: %q", h.failures("images/second.tar"))
	h.Stop()
	if out, code := h.Try("run"); code != 3 || !strings.Contains(out, "consumer pool repair") {
		t.Errorf("started on a pool that needs a repair: %d %s", code, out)
	}
	disk.heal()
	t.Logf("pool repair: %s", h.Consumer("pool", "repair"))
	h.Start()
	h.WaitActive("images/second.tar")
	h.WaitActive("images/third.tar")
	h.WaitDrained()
	h.Stop()
	h.Consumer("verify", "--all")
	h.Look()
}

// The state directory cannot be written any more in the middle of an image: nothing that
// was recorded is lost, nothing wrong is recorded, and when the disk works again every
// image is finished.
func TestStateWritesFail(t *testing.T) {
	h := bareHost(t)
	disk, dir := newFlaky(t, "state", 256<<20), filepath.Join(h.dir(), "state")
	disks.Run(t, "mkfs.ext4", "-q", disk.path)
	h.Check(os.Mkdir(dir, 0o700))
	mount := func() { t.Helper(); h.Check(unix.Mount(disk.path, dir, "ext4", 0, "")) }
	mount()
	t.Cleanup(func() { h.Check(unix.Unmount(dir, 0)) })
	data, metadata := newFlaky(t, "data", 1<<30), newFlaky(t, "metadata", 8<<20)
	h.install(poolName(t), "1GiB", []string{"STATE_MIN_FREE=0"}, "--data", data.path, "--metadata", metadata.path)
	h.Start()
	h.put("images/first.tar", tarballs.RootFS("hello", 3))
	first := h.WaitActive("images/first.tar")
	h.WaitDrained()
	snapshots, err := h.Store.SnapshotsOf(t.Context(), first.ID)
	h.Check(err)

	h.put("images/second.tar", smallFiles("second", 400))
	h.waitEvent("images/second.tar", "begun unpack")
	disk.fail()
	h.waitPaused(time.Now(), "database cannot be written")
	if got := h.readHello(snapshots[0].Path); got != "hello" {
		t.Errorf("the running snapshot reads %q", got)
	}
	h.checkNoFailures("images/second.tar")
	h.Kill()
	h.Check(h.Store.Close())
	h.Check(unix.Unmount(dir, 0))
	disk.heal()
	disks.Run(t, "fsck.ext4", "-p", disk.path)
	mount()
	h.Store, err = store.OpenExisting(t.Context(), filepath.Join(dir, "consumer.db"))
	h.Check(err)
	if img := h.WaitEnded("images/first.tar"); img.State != store.StateActive {
		t.Errorf("what was recorded is lost: %+v", img)
	}
	h.Start()
	h.WaitActive("images/second.tar")
	h.WaitDrained()
	h.Stop()
	h.Consumer("verify", "--all")
	h.Look()
}

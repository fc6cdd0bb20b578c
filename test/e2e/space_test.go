package e2e

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
	"imagemanager.internal/test/disks"
	tarballs "imagemanager.internal/test/images"
)

// newSmallDiskHost makes a host whose pool files, archives and database share one file
// system of that many MiB, as they do by default.
func newSmallDiskHost(t *testing.T, mib int64, env ...string) *host {
	t.Helper()
	h := bareHost(t)
	disk := disks.Loop(t, filepath.Join(t.TempDir(), "disk"), mib<<20)
	disks.Run(t, "mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", disk)
	h.Check(os.Mkdir(h.State, 0o700))
	h.Check(syscall.Mount(disk, h.State, "ext4", 0, ""))
	t.Cleanup(func() { h.Check(syscall.Unmount(h.State, 0)) })
	env = append([]string{"STATE_MIN_FREE=64MiB", "DEVICE_SIZE=512MiB", "MAX_ATTEMPTS=3", "RECONCILE_INTERVAL=0"},
		env...)
	h.install(poolName(t), "4GiB", env)
	return h
}

// free returns how many MiB are free under the state directory.
func (h *host) free() int64 {
	h.T.Helper()
	var s syscall.Statfs_t
	h.Check(syscall.Statfs(h.State, &s))
	return int64(s.Bavail) * s.Bsize >> 20
}

// writer is a user of a snapshot who writes to it, a little and durably, again and again.
type writer struct {
	stop   chan struct{}
	failed chan error
}

// startWriter writes to an image's snapshot, as its user, until finish is called.
func (h *host) startWriter(img store.Image) *writer {
	h.T.Helper()
	mnt := h.T.TempDir()
	h.Check(syscall.Mount(h.snapshots(img.ID)[0].Path, mnt, "ext4", 0, ""))
	h.T.Cleanup(func() { h.Check(syscall.Unmount(mnt, syscall.MNT_DETACH)) })
	w := &writer{stop: make(chan struct{}), failed: make(chan error, 1)}
	go func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-w.stop:
				w.failed <- nil
				return
			case <-tick.C:
			}
			if err := appendSynced(filepath.Join(mnt, "log"), 70<<10); err != nil {
				w.failed <- err
				return
			}
		}
	}()
	return w
}

// finish stops the writer and returns the first error that it saw.
func (w *writer) finish() error {
	close(w.stop)
	return <-w.failed
}

func appendSynced(name string, n int) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, n))
	return errors.Join(err, f.Sync(), f.Close())
}

// Pool, archives and database lie on one file system, as by default, and one upload is
// larger than what is free: users of other images' snapshots notice nothing, the pool
// stays writable, and the space comes back by itself.
func TestOneUploadFillsTheDisk(t *testing.T) {
	h := newSmallDiskHost(t, 700)
	h.Start()
	user := h.startWriter(h.makeFirst())
	before := h.free()
	h.put("images/big.tar", tarballs.RootFS("x", 3, big(345)))
	if img := h.WaitEnded("images/big.tar"); img.State != store.StateDead {
		t.Errorf("an image for which there is no room: %+v", img.Progress)
	}
	h.WaitFor("its space comes back", func() bool { return h.free() > before-64 })
	if err := user.finish(); err != nil {
		t.Errorf("a user of another image's snapshot: %v", err)
	}
	if s, err := h.pool().Status(); err != nil || s.Mode != devmapper.ModeReadWrite || s.NeedsCheck {
		t.Errorf("the pool is %s, needs a check: %t, %v", s.Mode, s.NeedsCheck, err)
	}
	h.put("images/small.tar", tarballs.RootFS("hello", 3))
	h.WaitActive("images/small.tar")
	h.WaitDrained()
	h.Stop()
	h.Look()
}

// Somebody else fills the file system of pool, archives and database in the middle of an
// unpack. What the unpack had written is given back although the journal cannot be
// written; once there is room, the image is made.
func TestDiskFilledInUnpack(t *testing.T) {
	h := newSmallDiskHost(t, 700, "MAX_ATTEMPTS=10")
	h.Start()
	h.makeFirst()
	h.put("images/b.tar", tarballs.RootFS("hello", 3, big(100)))
	h.waitEvent("images/b.tar", "step unpack formatted")
	h.WaitFor("it has written a part", func() bool {
		s, err := h.pool().Status()
		h.Check(err)
		return s.UsedData > 30<<20
	})
	h.Signal(syscall.SIGSTOP)
	hog := filepath.Join(h.State, "hog")
	fillDisk(t, hog)
	h.Signal(syscall.SIGCONT)
	h.waitEvent("images/b.tar", "undone unpack")
	h.WaitFor("what it had written comes back", func() bool { return h.free() > 20 })
	h.Check(os.Remove(hog))
	h.WaitActive("images/b.tar")
	for _, reason := range h.failures("images/b.tar") {
		if !strings.Contains(reason, "STATE_MIN_FREE") { // allowed until the file is gone
			t.Errorf("counted: %s", reason)
		}
	}
	h.waitResumed()
	h.WaitDrained()
	h.Stop()
	h.Consumer("verify", "--all")
	h.Look()
}

// fillDisk takes all the space of a file system.
func fillDisk(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := int64(64 << 20); size >= 4096; {
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		switch err := syscall.Fallocate(int(f.Fd()), 0, info.Size(), size); {
		case errors.Is(err, syscall.ENOSPC):
			size /= 2
		case err != nil:
			t.Fatal(err)
		}
	}
}

// One bit of the archive rots between download and unpack, size and times as they were,
// and the daemon is started again: the image is what was uploaded.
func TestBitRotBeforeUnpack(t *testing.T) {
	for name, where := range map[string]string{"a file's data": "0123456789", "a header": "etc/hello"} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.put("images/x.tar", tarballs.RootFS("0123456789", 3))
			h.Start("CIM_CRASH_AT=after:done:download:")
			if !h.WaitKilled(time.Minute) {
				t.Fatal("not killed")
			}
			archives, err := filepath.Glob(filepath.Join(h.State, "blobs", "*.tar"))
			h.Check(err)
			if len(archives) != 1 {
				t.Fatal(archives)
			}
			flipBit(t, archives[0], where)
			h.Start()
			img := h.WaitActive("images/x.tar")
			if got := h.readHello(h.snapshots(img.ID)[0].Path); got != "0123456789" {
				t.Errorf("the snapshot holds %q, uploaded was %q", got, "0123456789")
			}
			h.WaitDrained()
			h.Stop()
			h.Look()
		})
	}
}

// flipBit changes the first byte of a text in a file, and nothing else that can be seen.
func flipBit(t *testing.T, name, text string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(name)
	must(err)
	info, err := os.Stat(name)
	must(err)
	at := bytes.Index(b, []byte(text))
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	must(err)
	_, err = f.WriteAt([]byte{b[at] ^ 1}, int64(at))
	must(errors.Join(err, f.Close(), os.Chtimes(name, info.ModTime(), info.ModTime())))
}

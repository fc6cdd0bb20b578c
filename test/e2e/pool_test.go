package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"imagemanager.internal/test/disks"
	tarballs "imagemanager.internal/test/images"
)

// A pool that is low on space pauses intake: the message stays visible, the running
// snapshot serves on, the log says what to do. Grown beside the running daemon, the pool
// takes the image.
func TestPoolLowThenGrown(t *testing.T) {
	h := newSizedHost(t, "64MiB", "POOL_MIN_FREE_DATA=90")
	h.Start()
	// 8 MiB, more than a tenth
	big := tarballs.Entry{Name: "var/big", Body: strings.Repeat("0123456789abcdef", 1<<19), Mode: 0o644}
	h.put("images/a.tar", tarballs.RootFS("hello", 3, big))
	img := h.WaitActive("images/a.tar")
	h.WaitDrained()
	h.put("images/b.tar", tarballs.RootFS("world", 3, big))
	h.waitLogged("intake paused", 1)
	snapshots, err := h.Store.SnapshotsOf(t.Context(), img.ID)
	h.Check(err)
	if got := h.readHello(snapshots[0].Path); got != "hello" {
		t.Errorf("the snapshot reads %q while intake is paused", got)
	}
	if images, err := h.Store.ByKey(t.Context(), "images/b.tar"); err != nil || len(images) != 0 {
		t.Errorf("taken although the pool is low: %+v, %v", images, err)
	}
	if out, code := h.Try("pool", "grow", "--data-size", "1MiB"); code == 0 {
		t.Errorf("the pool was made smaller: %s", out)
	}
	if out := h.Consumer("pool", "grow", "--data-size", "1GiB"); !strings.Contains(out, "of 1GiB") {
		t.Errorf("pool grow: %s", out)
	}
	h.WaitActive("images/b.tar")
	h.waitLogged("intake resumed", 1)
	h.WaitDrained()
	h.Stop()
	if out := h.Consumer("pool", "repair"); !strings.Contains(out, "false") { // sound: nothing to do
		t.Errorf("pool repair: %s", out)
	}
	out, code := h.Try("pool", "grow", "--data-size", "2TiB")
	if code != 1 || !strings.Contains(out, "--metadata-size") {
		t.Errorf("more data than its metadata can count: exit code %d: %s", code, out)
	}
	if out = h.Consumer("pool", "grow", "--data-size", "200GiB"); !strings.Contains(out, "warning: the pool may take") {
		t.Errorf("a pool larger than its disk: %s", out)
	}
	h.Start()
	h.Stop()
	h.Look()
}

// A pool create that was refused its devices is given others: those are taken, and the
// first are not touched, then or later.
func TestCreateGivenOtherDevices(t *testing.T) {
	h := bareHost(t)
	files := t.TempDir()
	file := func(name string, size int64) string {
		path := filepath.Join(files, name)
		f, err := os.Create(path)
		h.Check(err)
		h.Check(errors.Join(f.Truncate(size), f.Close()))
		return path
	}
	wrong, wrongMetadata := file("wrong", 1<<30), file("wrong-metadata", 16<<20)
	disks.Run(t, "mke2fs", "-q", "-F", "-t", "ext4", wrong)
	h.OpenLog(filepath.Join(h.dir(), "daemon.log"))
	h.T.Cleanup(h.Close)
	create := []string{"pool", "create", "--name", poolName(t)}
	if out, code := h.Try(append(create, "--data", wrong, "--metadata", wrongMetadata)...); code == 0 {
		t.Fatalf("somebody's file system was taken: %s", out)
	}
	h.Check(os.Truncate(wrong, 0)) // no file system any more, and nobody gave it to us
	h.Check(os.Truncate(wrong, 1<<30))
	h.Consumer(append(create, "--data", file("data", 1<<30), "--metadata", file("metadata", 16<<20))...)
	for _, path := range []string{wrong, wrongMetadata} {
		var s syscall.Stat_t
		h.Check(syscall.Stat(path, &s))
		if s.Blocks != 0 {
			t.Errorf("%s was written to", path)
		}
	}
	if out := h.Consumer("pool", "status", "--json"); !strings.Contains(out, filepath.Join(files, "data")) {
		t.Errorf("the pool is elsewhere: %s", out)
	}
}

// A dry run changes nothing, not even the pool's generation: who looks at a copy does not
// make it the newer one.
func TestDryRunOnlyLooks(t *testing.T) {
	h := newHost(t)
	h.Start()
	h.makeFirst()
	h.WaitDrained()
	h.Stop()
	before, err := h.pool().Status()
	h.Check(err)
	h.Consumer("reconcile", "--dry-run")
	after, err := h.pool().Status()
	h.Check(err)
	if after.TransactionID != before.TransactionID {
		t.Errorf("the generation rose from %d to %d", before.TransactionID, after.TransactionID)
	}
	h.Consumer("snapshot", "images/a.tar")
	if after, err = h.pool().Status(); err != nil || after.TransactionID == before.TransactionID {
		t.Errorf("it did not rise by a command that changes the pool: %d, %v", after.TransactionID, err)
	}
}

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imagemanager.internal/internal/store"
	tarballs "imagemanager.internal/test/images"
)

// hold is a daemon of which one step waits for the test.
type hold struct {
	*host

	until, trace, at string
}

// startHeld starts a daemon that waits at a failpoint until release.
func (h *host) startHeld(at string) hold {
	h.T.Helper()
	o := hold{h, filepath.Join(h.dir(), "until"), filepath.Join(h.dir(), "trace"), at}
	h.Start("CIM_HOLD_AT="+at, "CIM_HOLD_UNTIL="+o.until, "CIM_CRASH_TRACE="+o.trace)
	return o
}

// waitPassed waits until the daemon has come to the failpoint n times.
func (o hold) waitPassed(n int) {
	o.T.Helper()
	o.WaitFor("the daemon comes to "+o.at, func() bool {
		text, err := os.ReadFile(o.trace)
		return err == nil && strings.Count(string(text), o.at+"\n") >= n
	})
}

func (o hold) release() {
	o.T.Helper()
	o.Check(os.WriteFile(o.until, nil, 0o600))
}

// A snapshot that is made, and written to, while a reconcile stands between its readings
// is left alone: that it was missing at the first reading is not a loss.
func TestSnapshotMadeBetweenReadings(t *testing.T) {
	h := newHost(t)
	h.Start()
	h.makeFirst() // a pool that has none of its devices would be taken for the wrong one
	h.WaitDrained()
	h.Stop()
	o := h.startHeld("between:readings")
	o.waitPassed(1)
	h.put("images/b.tar", tarballs.RootFS("hello", 3))
	img := h.WaitActive("images/b.tar")
	h.WaitDrained()
	made, events := h.snapshots(img.ID), h.events(img.ID)
	h.Check(h.writeFile(made[0].Path, "its user's").Close())
	o.release()
	o.waitPassed(4) // three reconciles are over
	if now := h.snapshots(img.ID); len(now) != 1 || now[0] != made[0] || h.events(img.ID) != events {
		t.Errorf("snapshots %+v, want %+v and no further event: %s", now, made, mustJSON(h.image(img.ID)))
	}
	if got := h.readHello(made[0].Path); got != "its user's" {
		t.Errorf("what its user wrote is gone: %q", got)
	}
	h.Stop()
	h.Look()
}

// What a job has in hand is neither rolled back, nor counted as left over, nor listed as
// a difference; once it is over, all agree.
func TestWorkInHandIsNoDifference(t *testing.T) {
	h := newHost(t)
	o := h.startHeld("after:step:unpack:formatted")
	h.put("images/a.tar", tarballs.RootFS("hello", 3))
	o.waitPassed(1)
	h.waitClaimed()
	out := h.Consumer("reconcile", "--dry-run")
	if !strings.Contains(out, "nothing to do") ||
		!strings.Contains(out, "not looked at, because the daemon works on them: 1 images") {
		t.Errorf("reconcile --dry-run: %s", out)
	}
	h.WaitFor("reconciles know of it", func() bool { return strings.Count(string(h.NewestLog()), `"in_hand":1`) > 1 })
	h.waitClaimed()
	o.release()
	if img := h.WaitActive("images/a.tar"); img.Attempt != 3 {
		t.Errorf("it took %d attempts, want one for each stage", img.Attempt)
	}
	h.Stop()
	h.Look()
}

// The manifest of a removed image goes with it, though other images are on their way; one
// that was left goes with the next reconcile, and needs no start of the daemon. A
// manifest that an image refers to stays.
func TestManifestsOfRemovedImages(t *testing.T) {
	h := newHost(t)
	dir := filepath.Join(h.State, "manifests")
	o := h.startHeld("after:step:unpack:formatted")
	h.put("images/a.tar", tarballs.RootFS("hello", 3))
	o.waitPassed(1)
	o.release()
	a := h.WaitActive("images/a.tar")
	h.put("images/b.tar", tarballs.RootFS("hello", 3))
	b := h.WaitActive("images/b.tar")
	h.put("images/c.tar", tarballs.RootFS("other", 3))
	h.WaitActive("images/c.tar")
	h.Check(os.Remove(o.until))
	h.put("images/d.tar", tarballs.RootFS("pending", 3))
	o.waitPassed(4) // d is on its way from here on
	manifest := filepath.Join(dir, strings.TrimPrefix(a.Tree.Digest, "sha256:"))
	exists := func(path string) bool { _, err := os.Stat(path); return err == nil }
	if a.Tree.Digest != b.Tree.Digest {
		t.Fatal("a and b are to have the same tree")
	}
	if h.Consumer("rm", "--force", "images/a.tar"); !exists(manifest) {
		t.Error("a manifest is gone that another image refers to")
	}
	if h.Consumer("rm", "--force", "images/b.tar"); exists(manifest) {
		t.Error("the manifest of a removed image is there")
	}
	left, part := filepath.Join(dir, strings.Repeat("0", 64)), filepath.Join(dir, "1.part")
	h.Check(os.WriteFile(left, nil, 0o600))
	h.Check(os.WriteFile(part, nil, 0o600))
	h.WaitFor("what was left is removed", func() bool { return !exists(left) && !exists(part) })
	o.release()
	h.WaitActive("images/d.tar")
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("%v, %v; want the manifests of c and d", entries, err)
	}
	h.Stop()
	if n := h.countImages(store.StateRemoved); n != 2 {
		t.Errorf("%d removed", n)
	}
	h.Look()
}

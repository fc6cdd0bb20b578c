package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/devmapper/ext4"
	"imagemanager.internal/internal/store"
	tarballs "imagemanager.internal/test/images"
)

// snapshots returns the active snapshots of an image.
func (h *host) snapshots(image int64) []store.Snapshot {
	h.T.Helper()
	list, err := h.Store.SnapshotsOf(h.T.Context(), image)
	h.Check(err)
	return list
}

// image returns the image as it is now.
func (h *host) image(id int64) store.Image {
	h.T.Helper()
	img, err := h.Store.Image(h.T.Context(), id)
	h.Check(err)
	return img
}

// expectFailure runs a command that must fail and print these words.
func (h *host) expectFailure(args []string, says ...string) {
	h.T.Helper()
	out, code := h.Try(args...)
	for _, want := range says {
		if code == 0 || !strings.Contains(out, want) {
			h.T.Errorf("consumer %s: exit code %d, %s; want a failure that says %q",
				strings.Join(args, " "), code, out, want)
		}
	}
}

// expectOutput runs a command that must succeed and print want.
func (h *host) expectOutput(want string, args ...string) {
	h.T.Helper()
	if out := h.Consumer(args...); !strings.Contains(out, want) {
		h.T.Errorf("consumer %s: %s; want %q", strings.Join(args, " "), out, want)
	}
}

// Beside a running daemon: a snapshot is removed unless it is mounted, an image unless it
// has snapshots or they may go with it. Afterwards only `consumer submit` brings them
// back.
func TestRemove(t *testing.T) {
	h := newHost(t)
	body := tarballs.RootFS("hello", 3)
	h.put("images/a.tar", body)
	h.put("images/b.tar", body) // the same tree: the manifest is shared
	h.Start()
	a, b := h.WaitActive("images/a.tar"), h.WaitActive("images/b.tar")
	h.Consumer("snapshot", "images/a.tar")
	two := h.snapshots(a.ID)
	h.expectFailure([]string{"rm", "images/a.tar"}, two[0].Path, two[1].Path, "--force")

	m, err := devmapper.MountDetached(two[1].Path, ext4.MountInspect)
	h.Check(err)
	for _, args := range [][]string{
		{"rm", "--force", "images/a.tar"},
		{"rm", two[1].Path},
		{"rm", "--force", two[1].Path},
	} {
		h.expectFailure(args, "in use", filepath.Base(two[1].Path))
	}
	h.Check(m.Close())
	if now := h.snapshots(a.ID); !slices.Equal(now, two) || h.image(a.ID).State != store.StateActive {
		t.Errorf("after refusals: %+v, %+v", now, h.image(a.ID).Progress)
	}
	for _, sn := range two { // both are active still
		if got := h.readHello(sn.Path); got != "hello" {
			t.Errorf("%s reads %q", sn.Path, got)
		}
	}

	h.expectOutput("removed, devices", "rm", fmt.Sprintf("snapshot:%d", two[1].Device))
	h.expectOutput("removed already", "rm", two[1].Path)
	h.expectOutput("removed, devices", "rm", two[0].Path)
	h.expectOutput(fmt.Sprintf("device %d deleting", two[0].Device), "history", "images/a.tar")
	h.put("images/a.tar", body)
	h.WaitDrained()
	if left := h.snapshots(a.ID); len(left) != 0 || h.image(a.ID).State != store.StateActive {
		t.Errorf("a further message made %+v of %+v", left, h.image(a.ID).Progress)
	}
	h.Consumer("snapshot", "images/a.tar")

	h.expectOutput(`"already_removed": false`, "rm", "--force", "--json", "images/a.tar")
	h.expectOutput("removed already", "rm", "images/a.tar")
	h.expectOutput("by an operator", "history", "images/a.tar")
	h.expectOutput("as sealed", "verify", "images/b.tar")
	h.checkStaysRemoved(a, body)

	h.expectOutput(fmt.Sprintf("image %d (images/a.tar) was removed", a.ID), "submit", "images/a.tar")
	if again := h.WaitActive("images/a.tar"); again.ID != a.ID || again.Tree.Digest != b.Tree.Digest {
		t.Errorf("submitted again: %+v", again)
	}
	h.put("images/bad.tar", []byte("no archive"))
	bad := h.WaitEnded("images/bad.tar")
	h.expectOutput("removed", "rm", "images/bad.tar")
	h.expectOutput("was removed", "retry", "bad.tar") // a second chance for one that was refused
	if again := h.WaitEnded("images/bad.tar"); again.State != store.StateRejected || again.Attempt <= bad.Attempt {
		t.Errorf("submitted again: %+v", again.Progress)
	}
	h.Stop()
	h.Look()
	h.expectOutput("removed, devices", "rm", "--force", fmt.Sprint(b.ID)) // without a daemon
	h.Look()
}

// checkStaysRemoved announces a removed image in every way except `consumer submit`, and
// checks that it stays removed.
func (h *host) checkStaysRemoved(img store.Image, body []byte) {
	h.T.Helper()
	before := h.events(img.ID)
	for range 3 {
		h.put(img.Key, body)
	}
	h.WaitDrained()
	h.expectOutput("0 enqueued", "backfill")
	h.Stop()
	h.Start()
	h.WaitRunning()
	if now := h.image(img.ID); now.State != store.StateRemoved || h.events(img.ID) != before {
		h.T.Errorf("image %d came back: %+v", img.ID, now.Progress)
	}
	if _, err := os.Stat(filepath.Join(h.dir(), "state", "blobs", fmt.Sprintf("%d.tar", img.ID))); !errors.Is(err,
		os.ErrNotExist) {
		h.T.Errorf("the archive is still there: %v", err)
	}
}

// A removal gives the space back: to the pool, and to the file system that the pool's
// file lies on.
func TestRemoveFreesSpace(t *testing.T) {
	h := newHost(t)
	h.Start()
	h.put("images/a.tar", tarballs.RootFS("small", 1))
	h.WaitActive("images/a.tar")
	before := h.used()
	for i := range 3 {
		// 16 MiB
		big := tarballs.Entry{Name: "var/big", Body: strings.Repeat(fmt.Sprintf("%015d\n", i), 1<<20), Mode: 0o644}
		h.put(fmt.Sprintf("images/big-%d.tar", i), tarballs.RootFS("big", 1, big))
		h.WaitActive(fmt.Sprintf("images/big-%d.tar", i))
	}
	full := h.used()
	if full < before+48<<20 {
		t.Errorf("three images of 16 MiB made the file grow from %d to %d bytes", before, full)
	}
	for i := range 3 {
		h.Consumer("rm", "--force", fmt.Sprintf("images/big-%d.tar", i))
	}
	after := h.used()
	t.Logf("blocks of data.img: %.1f MiB, with the images %.1f, after their removal %.1f",
		mib(before), mib(full), mib(after))
	if after > before+1<<20 {
		t.Errorf("the file has %d bytes, %d before there were images", after, before)
	}
	h.Stop()
	h.Look()
	if manifests, err := filepath.Glob(filepath.Join(h.dir(), "state", "manifests", "*")); err != nil ||
		len(manifests) != 1 {
		t.Errorf("manifests: %v, %v, want that of the image that is left", manifests, err)
	}
}

// used is how many bytes of disk the pool's data file takes.
func (h *host) used() int64 {
	h.T.Helper()
	f, err := os.Open(filepath.Join(h.dir(), "state", "pool", "data.img"))
	h.Check(err)
	defer f.Close()
	h.Check(f.Sync())
	var st syscall.Stat_t
	h.Check(syscall.Fstat(int(f.Fd()), &st))
	return st.Blocks * 512
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// runKilledAt runs a command that must be killed at a failpoint.
func (h *host) runKilledAt(at string, args ...string) {
	h.T.Helper()
	cmd := exec.Command(h.Program(), args...)
	cmd.Env = append(h.Environment(), "CIM_CRASH_AT="+at)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		h.T.Fatalf("%s %v: not killed: %v, %s", at, args, err, out.String())
	}
}

// killPoint is a removal that is cut off at a point, and then once more.
type killPoint struct {
	image  bool   // else its snapshot
	at     string // failpoint
	second string // command that is killed at the same failpoint, when the next device is there
}

// killPoints returns all the events of a removal.
func killPoints() []killPoint {
	var list []killPoint
	for _, when := range []string{"before:", "after:"} {
		list = append(list, killPoint{image: true, at: when + "removed::"},
			killPoint{at: when + "removed:activate:deleting"})
		for _, event := range []string{"device::deleting", "device::gone"} {
			at := when + event
			list = append(list, killPoint{at: at}, killPoint{image: true, at: at, second: "rm"},
				killPoint{image: true, at: at, second: "run"})
		}
	}
	return list
}

// Killed at every event of a removal, and killed again at the same one by the second try
// or by the daemon's start, the removal is finished by the next start; before its first
// event it is as if it had never been asked for.
func TestRemoveKilled(t *testing.T) {
	h := newHost(t)
	list := killPoints()
	key := func(i int) string { return fmt.Sprintf("images/%d.tar", i) }
	for i := range list {
		h.put(key(i), tarballs.RootFS("hello", 3))
	}
	h.Start()
	for i := range list {
		h.WaitActive(key(i))
	}
	h.WaitDrained()
	h.Stop()
	for i, c := range list {
		h.checkRemovalKilled(key(i), c)
	}
	t.Logf("%d removals cut off", len(list))
}

// checkRemovalKilled kills a removal, and then the second command. The next start must
// finish the removal.
func (h *host) checkRemovalKilled(key string, c killPoint) {
	h.T.Helper()
	img := h.WaitActive(key)
	rm := []string{"rm", h.snapshots(img.ID)[0].Path}
	if c.image {
		rm = []string{"rm", "--force", key}
	}
	h.runKilledAt(c.at, rm...)
	switch c.second {
	case "rm":
		h.runKilledAt(c.at, rm...)
	case "run":
		h.runKilledAt(c.at, "run")
	}
	h.Start()
	h.WaitRunning()
	h.Kill()
	h.Look()
	nothing := strings.HasPrefix(c.at, "before:removed:")
	left, state := h.snapshots(img.ID), h.image(img.ID).State
	if kept := len(left) == 1 && state == store.StateActive; nothing != kept || c.image && !nothing &&
		state != store.StateRemoved {
		h.T.Errorf("%+v: image %s with the snapshots %+v", c, state, left)
	}
	want := map[bool]string{true: "removed, devices", false: "removed already"}[nothing]
	h.expectOutput(want, rm...)
}

// Messages about an image that is removed meanwhile neither bring it back nor leave
// anything of it.
func TestRemoveUnderMessages(t *testing.T) {
	h := newHost(t)
	h.Start()
	body := tarballs.RootFS("hello", 3)
	for i := range 8 {
		key := fmt.Sprintf("images/%d.tar", i)
		h.put(key, body)
		img := h.WaitActive(key)
		var putting sync.WaitGroup
		putting.Go(func() {
			for range 6 {
				h.put(key, body)
			}
		})
		// refused while a message has found its snapshot inactive and activates it again
		h.WaitFor("the image is removed", func() bool {
			out, code := h.Try("rm", "--force", key)
			if code != 0 && !strings.Contains(out, "not removed") {
				t.Errorf("rm: %d %s", code, out)
			}
			return code == 0
		})
		putting.Wait()
		h.WaitDrained()
		if now := h.image(img.ID); now.State != store.StateRemoved {
			t.Errorf("image %d is %+v", img.ID, now.Progress)
		}
	}
	h.Stop()
	h.Look()
	devices, err := h.Store.Devices(t.Context())
	h.Check(err)
	if len(devices) != 0 {
		t.Errorf("devices left: %+v", devices)
	}
}

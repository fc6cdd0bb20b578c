package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
	tarballs "imagemanager.internal/test/images"
	"imagemanager.internal/test/invariants"
)

// An image proves itself again; a byte changed on the device is found, and the file that
// it belongs to is named.
func TestVerify(t *testing.T) {
	h := newHost(t)
	h.Start()
	const text = "a text that lies on the device once"
	h.put("images/a.tar", tarballs.RootFS("hello", 3, tarballs.Entry{Name: "var/planted", Body: text, Mode: 0o644}))
	img := h.WaitActive("images/a.tar")
	if out := h.Consumer("verify", "images/a.tar"); !strings.Contains(out, "as sealed") ||
		!strings.Contains(out, img.Tree.Digest) {
		t.Errorf("verify: %s", out)
	}
	h.put("images/a.tar", []byte("no archive")) // the newest version of the key, and refused
	h.WaitFor("it is refused", func() bool { return h.countImages(store.StateRejected) == 1 })
	for _, args := range [][]string{{"verify", "--json", "images/a.tar"}, {"snapshot", "--json", "images/a.tar"}} {
		if out := h.Consumer(args...); !strings.Contains(out, fmt.Sprintf(`"image_id": %d`, img.ID)) {
			t.Errorf("%v: %s", args, out)
		}
	}
	h.WaitDrained()
	h.Stop()
	h.plant(img.Tree.Device, text, "A")
	out, code := h.Try("verify", "--all")
	if code != 6 || !strings.Contains(out, `"rootfs/var/planted": sha256`) || strings.Count(out, "rootfs/") != 1 ||
		!strings.Contains(out, "`consumer retry") {
		t.Errorf("after damage: exit code %d, %s", code, out)
	}
	h.plant(img.Tree.Device, strings.Replace(text, "a", "A", 1), "a")
	h.Consumer("verify", "images/a.tar")
	h.Look()
}

// plant overwrites the beginning of a text on an image's device, without the file system.
func (h *host) plant(device int64, text, with string) {
	h.T.Helper()
	pool, err := invariants.OpenPool(h.T.Context(), h.Store)
	h.Check(err)
	defer pool.Close()
	id := devmapper.ID(device)
	path, err := pool.Activate(id, devmapper.KindImage, 256<<20, false)
	h.Check(err)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	h.Check(err)
	buf, found := make([]byte, 1<<20), 0
	for at := int64(0); ; at += int64(len(buf)) {
		n, err := f.ReadAt(buf, at)
		if i := bytes.Index(buf[:n], []byte(text)); i >= 0 {
			found++
			_, err := f.WriteAt([]byte(with), at+int64(i))
			h.Check(err)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		h.Check(err)
	}
	h.Check(errors.Join(f.Sync(), f.Close(), pool.Deactivate(id)))
	if found != 1 {
		h.T.Fatalf("the text lies on the device %d times", found)
	}
}

// What was refused as an attack is kept aside under its hash, within the budget, and the
// history names the rule; the policy is chosen by the key's prefix and never by the
// archive.
func TestViolationsAndPolicies(t *testing.T) {
	h := newHost(t, "IMAGE_POLICIES=images/debian/:distro", "VIOLATIONS_SIZE=40KiB")
	h.Start()
	var before, last []byte
	for _, name := range []string{"a", "b", "c"} {
		before, last = last, tarballs.RootFS("x", 8, tarballs.Entry{Name: "../" + name, Body: name})
		h.put("images/"+name+".tar", last)
		if img := h.WaitEnded("images/" + name + ".tar"); img.State != store.StateViolation {
			t.Errorf("%s ended %s", name, img.State)
		}
	}
	if out := h.Consumer("history", "images/c.tar"); !strings.Contains(out, "violation") ||
		!strings.Contains(out, "dotdot_name") {
		t.Errorf("history: %s", out)
	}
	setuid := tarballs.RootFS("x", 1, tarballs.Entry{Name: "usr/su", Mode: 0o4755, Body: "x"})
	h.put("images/debian/d.tar", setuid)
	h.WaitActive("images/debian/d.tar")
	h.put("images/other.tar", setuid)
	if img := h.WaitEnded("images/other.tar"); img.State == store.StateActive {
		t.Error("a policy reached beyond its prefix")
	}
	h.WaitDrained()
	h.Stop()
	files, err := filepath.Glob(filepath.Join(h.dir(), "state", "violations", "*"))
	h.Check(err)
	var size int64
	for _, f := range files {
		info, err := os.Stat(f)
		h.Check(err)
		size += info.Size()
	}
	if len(files) != 2 || size > 40<<10 { // there is room for two of the three; the oldest goes
		t.Errorf("kept aside: %v, %d bytes", files, size)
	}
	for _, body := range [][]byte{before, last} {
		if kept, err := os.ReadFile(filepath.Join(h.dir(), "state", "violations",
			sha256Hex(body)+".tar")); err != nil || !bytes.Equal(kept, body) {
			t.Errorf("the newest are not what was kept: %v", err)
		}
	}
	text := h.Log()
	for _, field := range []string{
		`"security_violation":"dotdot_name"`, `"entry":"../c"`, `"offset":`,
		`"sha256":"` + sha256Hex(last),
	} {
		if !bytes.Contains(text, []byte(field)) {
			t.Errorf("the log does not have %s", field)
		}
	}
	h.Look()
}

// verdictsOf returns what `verify --all --json` says of each image, by its key.
func (h *host) verdictsOf(wantCode int) map[string]string {
	h.T.Helper()
	out, code := h.Try("verify", "--all", "--json")
	if code != wantCode {
		h.T.Errorf("exit code %d, want %d: %s", code, wantCode, out)
	}
	var results []struct {
		Key        string `json:"s3_key"`
		Same       bool   `json:"same"`
		Unreadable string `json:"unreadable"`
		Error      string `json:"error"`
	}
	h.Check(json.NewDecoder(strings.NewReader(out)).Decode(&results)) // what follows is standard error
	is := map[string]string{}
	for _, r := range results {
		switch {
		case r.Error != "":
			is[r.Key] = "not looked at"
		case r.Unreadable != "":
			is[r.Key] = "unreadable"
		default:
			is[r.Key] = map[bool]string{true: "same", false: "differs"}[r.Same]
		}
	}
	return is
}

// An image that cannot be read, and one whose device another program holds, do not stop
// the verification of the others. Only the first is a loss.
func TestVerifyGoesOn(t *testing.T) {
	h := newHost(t)
	h.Start()
	var images []store.Image
	for _, key := range []string{"images/a.tar", "images/b.tar", "images/c.tar", "images/d.tar"} {
		h.put(key, tarballs.RootFS("hello "+key, 3))
		images = append(images, h.WaitActive(key))
	}
	h.WaitDrained()
	h.Stop()
	pool := h.pool()
	held := devmapper.ID(images[0].Tree.Device)
	_, err := pool.Activate(held, devmapper.KindImage, 256<<20, false) // verify wants it read-only
	h.Check(err)
	whole := h.overwrite(pool, images[1].Tree.Device, make([]byte, 64<<10))
	if is := fmt.Sprint(h.verdictsOf(6)); is != "map[images/a.tar:not looked at images/b.tar:unreadable "+
		"images/c.tar:same images/d.tar:same]" {
		t.Error(is)
	}
	if out, code := h.Try("verify", "--all"); code != 6 || !strings.Contains(out, "UNREADABLE") ||
		!strings.Contains(out, "NOT LOOKED AT") {
		t.Errorf("exit code %d, %s", code, out)
	}
	h.overwrite(pool, images[1].Tree.Device, whole)
	if is := fmt.Sprint(h.verdictsOf(1)); !strings.Contains(is, "a.tar:not looked at images/b.tar:same") {
		t.Error(is)
	}
	h.Check(pool.Deactivate(held))
	h.verdictsOf(0)
	h.Look()
}

// overwrite writes at the beginning of an image's device and returns what was there.
func (h *host) overwrite(pool *devmapper.Pool, device int64, with []byte) (was []byte) {
	h.T.Helper()
	id := devmapper.ID(device)
	path, err := pool.Activate(id, devmapper.KindImage, 256<<20, false)
	h.Check(err)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	h.Check(err)
	was = make([]byte, len(with))
	_, err = f.ReadAt(was, 0)
	h.Check(err)
	_, err = f.WriteAt(with, 0)
	h.Check(errors.Join(err, f.Sync(), f.Close(), pool.Deactivate(id)))
	return was
}

// While all images are read, others get the pool between one image and the next.
func TestVerifyLetsOthersIn(t *testing.T) {
	h := newHost(t)
	h.Start()
	for i := range 12 {
		h.put(fmt.Sprintf("images/%d.tar", i), tarballs.RootFS("hello", 3, big(4)))
	}
	h.WaitFor("all are active", func() bool { return h.countImages(store.StateActive) == 12 })
	h.WaitDrained()
	verify := exec.Command(h.Program(), "verify", "--all")
	verify.Env = h.Environment()
	h.Check(verify.Start())
	done := make(chan error, 1)
	go func() { done <- verify.Wait() }()
	during := 0
	for running := true; running; {
		h.Consumer("snapshot", "images/0.tar")
		select {
		case err := <-done:
			h.Check(err)
			running = false
		default:
			during++
		}
	}
	t.Logf("%d snapshots were made meanwhile", during)
	if during < 3 {
		t.Errorf("%d snapshots were made while all was verified: it holds the pool", during)
	}
	h.Stop()
	h.Look()
}

package e2e

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
	"imagemanager.internal/test/invariants"
)

// An image proves itself again; a byte changed on the device is found, and the file that it belongs to is named.
func TestVerify(t *testing.T) {
	h := newHost(t)
	h.start()
	const text = "a text that lies on the device once"
	h.put("images/a.tar", rootfs("hello", 3, entry{name: "var/planted", body: text, mode: 0o644}))
	img := h.active("images/a.tar")
	if out := h.consumer("verify", "images/a.tar"); !strings.Contains(out, "as sealed") || !strings.Contains(out, img.Tree.Digest) {
		t.Errorf("verify: %s", out)
	}
	h.drained()
	h.stop()
	h.plant(img.Tree.Device, text, "A")
	out, code := h.try("verify", "--all")
	if code != 6 || !strings.Contains(out, `"rootfs/var/planted": sha256`) || strings.Count(out, "rootfs/") != 1 {
		t.Errorf("after damage: exit code %d, %s", code, out)
	}
	h.plant(img.Tree.Device, strings.Replace(text, "a", "A", 1), "a")
	h.consumer("verify", "images/a.tar")
	h.whole()
}

// plant overwrites the beginning of a text on an image's device, behind the file system's back.
func (h *host) plant(device int64, text, with string) {
	h.t.Helper()
	pool, err := invariants.OpenPool(h.t.Context(), h.store)
	h.check(err)
	defer pool.Close()
	id := devmapper.ID(device)
	path, err := pool.Activate(id, devmapper.KindImage, 256<<20, false)
	h.check(err)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	h.check(err)
	buf, found := make([]byte, 1<<20), 0
	for at := int64(0); ; at += int64(len(buf)) {
		n, err := f.ReadAt(buf, at)
		if i := bytes.Index(buf[:n], []byte(text)); i >= 0 {
			found++
			_, err := f.WriteAt([]byte(with), at+int64(i))
			h.check(err)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		h.check(err)
	}
	h.check(errors.Join(f.Sync(), f.Close(), pool.Deactivate(id)))
	if found != 1 {
		h.t.Fatalf("the text lies on the device %d times", found)
	}
}

// What was refused as an attack is kept aside under its hash, within the budget, and the history names the rule; the policy is chosen
// by the key's prefix and never by the archive.
func TestViolationsAndPolicies(t *testing.T) {
	h := newHost(t, "IMAGE_POLICIES=images/debian/:distro", "VIOLATIONS_SIZE=40KiB")
	h.start()
	var before, last []byte
	for _, name := range []string{"a", "b", "c"} {
		before, last = last, rootfs("x", 8, entry{name: "../" + name, body: name})
		h.put("images/"+name+".tar", last)
		if img := h.ends("images/" + name + ".tar"); img.State != store.Violation {
			t.Errorf("%s ended %s", name, img.State)
		}
	}
	if out := h.consumer("history", "images/c.tar"); !strings.Contains(out, "violation") || !strings.Contains(out, "dotdot_name") {
		t.Errorf("history: %s", out)
	}
	setuid := rootfs("x", 1, entry{name: "usr/su", mode: 0o4755, body: "x"})
	h.put("images/debian/d.tar", setuid)
	h.active("images/debian/d.tar")
	h.put("images/other.tar", setuid)
	if img := h.ends("images/other.tar"); img.State == store.Active {
		t.Error("a policy reached beyond its prefix")
	}
	h.drained()
	h.stop()
	files, err := filepath.Glob(filepath.Join(h.dir, "state", "violations", "*"))
	h.check(err)
	var size int64
	for _, f := range files {
		info, err := os.Stat(f)
		h.check(err)
		size += info.Size()
	}
	if len(files) != 2 || size > 40<<10 { // there is room for two of the three; the oldest goes
		t.Errorf("kept aside: %v, %d bytes", files, size)
	}
	for _, body := range [][]byte{before, last} {
		if kept, err := os.ReadFile(filepath.Join(h.dir, "state", "violations", sha256Hex(body)+".tar")); err != nil || !bytes.Equal(kept, body) {
			t.Errorf("the newest are not what was kept: %v", err)
		}
	}
	text, err := os.ReadFile(h.log.Name())
	h.check(err)
	for _, field := range []string{`"security_violation":"dotdot_name"`, `"entry":"../c"`, `"offset":`, `"sha256":"` + sha256Hex(last)} {
		if !bytes.Contains(text, []byte(field)) {
			t.Errorf("the log does not have %s", field)
		}
	}
	h.whole()
}

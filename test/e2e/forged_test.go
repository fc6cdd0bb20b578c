package e2e

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"imagemanager.internal/internal/archive/extract"
	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/devmapper/ext4"
	"imagemanager.internal/internal/store"
	"imagemanager.internal/test/disks"
	tarballs "imagemanager.internal/test/images"
)

// forge puts a seal record onto a snapshot, as its user can, that proves the snapshot to
// be an image in its own right: what is on it has the digest that the record promises.
func forge(t *testing.T, snapshot string, seal store.SealRecord) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	m, err := devmapper.MountDetached(snapshot, ext4.MountBuild)
	must(err)
	root, err := os.OpenRoot("/proc/self/fd/" + mustJSON(m.Root().Fd()))
	must(err)
	must(root.WriteFile("rootfs/etc/hello", []byte("forged"), 0o644))
	if err := root.Remove("seal.json"); !errors.Is(err, os.ErrNotExist) {
		must(err)
	}
	tree, err := extract.ReadBack(t.Context(), m.Root())
	must(err)
	seal.Digest = tree.Digest()
	record, err := seal.Encode()
	must(err)
	must(extract.WriteSealRecord(m.Root(), record))
	must(errors.Join(m.Sync(), root.Close(), m.Close()))
}

// sealOn is the seal record of an image's device.
func (h *host) sealOn(img store.Image) (s store.SealRecord) {
	h.T.Helper()
	h.editSeal(img.Tree.Device, func(have *store.SealRecord) { s = *have })
	return s
}

// overwrite writes to every byte of a device, so that it shares no data with any other.
func overwrite(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf := bytes.Repeat([]byte("mine"), 256<<10)
	for err == nil {
		_, err = f.Write(buf)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// The user of a snapshot writes a seal record onto it that claims another image, or his
// own device for an image: a lost journal is rebuilt from what the pool knows, and what
// he wrote stays his. The victim's image is the victim's, and his snapshot is his
// image's.
func TestForgedSeals(t *testing.T) {
	h := newSizedHost(t, "1GiB", "DEVICE_SIZE=64MiB")
	h.Start()
	for _, key := range []string{"a", "victim", "b"} {
		h.put("images/"+key+".tar", tarballs.RootFS(key, 3))
		h.WaitActive("images/" + key + ".tar")
	}
	h.WaitDrained()
	h.Stop()
	images, err := h.Store.Images(t.Context())
	h.Check(err)
	a, victim, b := images[0], images[1], images[2]
	want := h.journal()

	// He claims to be the victim's image, with a device that is newer.
	claimed := h.sealOn(victim)
	one := h.snapshots(a.ID)[0]
	claimed.Device = one.Device
	forge(t, one.Path, claimed)

	// He makes his device again, so that nothing of its image is left, and claims an
	// image that never was.
	claimed = h.sealOn(b)
	two := h.snapshots(b.ID)[0]
	overwrite(t, two.Path)
	disks.Run(t, "mke2fs", "-q", "-F", "-t", "ext4", "-U", claimed.FSUUID, two.Path)
	claimed.Device, claimed.Image, claimed.Key, claimed.ETag = two.Device, 4711, "images/never.tar", "e"
	m, err := devmapper.MountDetached(two.Path, ext4.MountBuild)
	h.Check(err)
	root, err := os.OpenRoot("/proc/self/fd/" + mustJSON(m.Root().Fd()))
	h.Check(err)
	h.Check(errors.Join(root.Mkdir("rootfs", 0o755), root.Mkdir("rootfs/etc", 0o755), root.Close(), m.Close()))
	forge(t, two.Path, claimed)

	h.loseDatabase()
	out, code := h.Try("recover", "--json", "--name", poolName(t))
	found, _ := h.parseReport(out)
	if code != 7 || found[one.Device] != "snapshot" ||
		!strings.Contains(found[two.Device], "no snapshot was ever taken of it") {
		t.Errorf("recover: exit code %d, %v", code, found)
	}
	h.reopen()
	got := h.journal()
	if len(got.images) != 3 || len(got.snapshots) != 2 {
		t.Errorf("rebuilt: %+v", got)
	}
	for i, img := range got.images {
		if img.ID != want.images[i].ID || img.Key != want.images[i].Key ||
			img.Tree.Digest != want.images[i].Tree.Digest {
			t.Errorf("image %d is %q with tree %s", img.ID, img.Key, img.Tree.Digest)
		}
	}
	if sn := h.snapshots(a.ID); len(sn) != 1 || sn[0].Path != one.Path || h.readHello(one.Path) != "forged" {
		t.Errorf("what its user wrote: %+v", sn)
	}
	h.unclaimed["thin_device"] = 1
	h.Start()
	h.Stop()
	h.Consumer("verify", "--all")
	if !h.hasThin(h.pool(), two.Device) {
		t.Error("what could not be proved is gone")
	}
}

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
	tarballs "imagemanager.internal/test/images"
	"imagemanager.internal/test/invariants"
)

// A pool that is lost is replaced, and the next start makes every image again: from its
// archive, or where that is lost too, from S3. As long as anything of the pool is left,
// it is not replaced.
func TestPoolLost(t *testing.T) {
	h := newHost(t)
	keys := []string{"images/a.tar", "images/b.tar", "images/c.tar"}
	digests := map[string]string{}
	h.Start()
	for i, key := range keys {
		h.put(key, tarballs.RootFS(fmt.Sprint("hello ", i), 3+i))
		digests[key] = h.WaitActive(key).Tree.Digest
	}
	h.Consumer("rm", "--force", "images/c.tar")
	h.WaitDrained()
	h.Stop()
	replace := []string{"pool", "create", "--replace", "--name", "another", "--data-size", "2GiB", "--thins", "100"}
	dir := filepath.Join(h.dir(), "state", "pool")
	metadata, data := filepath.Join(dir, "metadata.img"), filepath.Join(dir, "data.img")

	h.expectFailure(replace, "not lost", "active")
	h.Check(os.Rename(data, data+".away")) // deleted names: the kernel has the files all the same
	h.Check(os.Rename(metadata, metadata+".away"))
	h.expectFailure(replace, "not lost", "active")
	h.Check(os.Rename(metadata+".away", metadata))
	h.Consumer("pool", "detach")
	h.expectFailure(replace, "not lost", metadata) // the data alone are away
	h.Check(os.Rename(data+".away", data))
	h.expectFailure(replace, "not lost", metadata)
	h.Check(os.Rename(metadata, metadata+".away"))
	h.expectFailure(replace, data, "not empty") // the metadata alone are away
	if out, code := h.Try("pool", "status"); code != 3 || !strings.Contains(out, "not open") ||
		!strings.Contains(out, data) {
		t.Errorf("pool status of a pool that is lost: exit code %d, %s", code, out)
	}
	h.expectFailure(append(replace, "--data", "/dev/no-such-disk", "--metadata", metadata), "no device")
	h.Check(os.Rename(metadata+".away", metadata))
	row, err := h.Store.Pool(t.Context())
	if err != nil || row.State != "ready" || row.Name == "another" {
		t.Fatalf("after refusals: %+v, %v", row, err)
	}
	h.Start() // nothing has changed
	h.Stop()
	h.Look()

	h.Consumer("pool", "detach")
	h.Check(os.RemoveAll(dir))
	h.expectFailure([]string{"run"}, "--replace")
	h.Check(os.Remove(filepath.Join(h.dir(), "state", "blobs", "2.tar")))
	h.Consumer(replace...)
	h.expectFailure(replace, "not lost")
	if now, err := h.Store.Pool(t.Context()); err != nil || now.UUID == row.UUID || now.State != "ready" {
		t.Errorf("the new pool is %+v, %v: should the old one come back, it would be taken for it", now, err)
	}
	h.Start()
	h.WaitRunning() // before, the journal does not know of the loss
	for _, key := range keys[:2] {
		if got := h.WaitActive(key); got.Tree.Digest != digests[key] {
			t.Errorf("%s holds %s, was %s", key, got.Tree.Digest, digests[key])
		}
	}
	if got := h.WaitEnded("images/c.tar"); got.State != store.StateRemoved {
		t.Errorf("the removed image is %s", got.State)
	}
	h.Stop()
	h.Look()
	if out := h.Consumer("verify", "--all"); strings.Count(out, "as sealed") != 2 {
		t.Errorf("verify: %s", out)
	}
}

// A backup that was made while images came in takes the place of a lost database: what it
// knows is whole, what came after it is reported as foreign, left alone, and made again
// by a backfill.
func TestBackupAndRestore(t *testing.T) {
	h := newHost(t)
	file := filepath.Join(h.dir(), "copy.db")
	h.Start()
	h.WaitRunning()
	for i := range 6 {
		h.put(fmt.Sprintf("images/%d.tar", i), tarballs.RootFS("hello", 3))
		h.Consumer("backup", "--force", file)
	}
	known := map[string]bool{}
	for i := range 6 {
		h.WaitActive(fmt.Sprintf("images/%d.tar", i))
	}
	h.Consumer("backup", "--force", file)
	h.put("images/later.tar", tarballs.RootFS("later", 3))
	later := h.WaitActive("images/later.tar")
	devices, err := h.Store.DevicesOf(t.Context(), later.ID)
	h.Check(err)
	h.WaitDrained()
	h.Stop()

	h.Check(h.Store.Close())
	db := filepath.Join(h.dir(), "state", "consumer.db")
	for _, suffix := range []string{"", "-wal", "-shm"} {
		h.Check(os.RemoveAll(db + suffix))
	}
	text, err := os.ReadFile(file)
	h.Check(err)
	h.Check(os.WriteFile(db, text, 0o600))
	h.Start()
	h.WaitRunning()
	h.Store, err = store.OpenExisting(t.Context(), db)
	h.Check(err)
	images, err := h.Store.Images(t.Context())
	h.Check(err)
	for _, img := range images {
		known[img.Key] = img.State == store.StateActive
	}
	if len(known) != 6 || known["images/later.tar"] {
		t.Errorf("restored: %v", known)
	}
	pool, err := invariants.OpenPool(t.Context(), h.Store)
	h.Check(err)
	defer pool.Close()
	reported := h.NewestLog()
	for _, d := range devices {
		if want := fmt.Sprintf("thin device %d\"", d.ID); !strings.Contains(string(reported), want) {
			t.Errorf("the log does not report %s", want)
		}
		h.Check(pool.Deactivate(devmapper.ID(d.ID)))
		h.Check(pool.Delete(devmapper.ID(d.ID))) // that it can be deleted shows that it was left alone
	}
	h.expectOutput("1 enqueued", "backfill")
	if again := h.WaitActive("images/later.tar"); again.Tree.Digest != later.Tree.Digest {
		t.Errorf("made again: %+v", again.Tree)
	}
	h.Stop()
	h.Look()
}

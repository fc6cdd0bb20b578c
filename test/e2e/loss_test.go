package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
	"imagemanager.internal/test/invariants"
)

// A pool that is lost is replaced, and the next start makes every image again: from its archive, or where that is lost too, from S3. As long as
// anything of the pool is left, it is not replaced.
func TestPoolLost(t *testing.T) {
	h := newHost(t)
	keys := []string{"images/a.tar", "images/b.tar", "images/c.tar"}
	digests := map[string]string{}
	h.start()
	for i, key := range keys {
		h.put(key, rootfs(fmt.Sprint("hello ", i), 3+i))
		digests[key] = h.active(key).Tree.Digest
	}
	h.consumer("rm", "--force", "images/c.tar")
	h.drained()
	h.stop()
	replace := []string{"pool", "create", "--replace", "--name", "another", "--data-size", "2GiB", "--thins", "100"}
	dir := filepath.Join(h.dir, "state", "pool")
	metadata, data := filepath.Join(dir, "metadata.img"), filepath.Join(dir, "data.img")

	h.refused(replace, "not lost", "active")
	h.check(os.Rename(data, data+".away")) // deleted names: the kernel has the files all the same
	h.check(os.Rename(metadata, metadata+".away"))
	h.refused(replace, "not lost", "active")
	h.check(os.Rename(metadata+".away", metadata))
	h.consumer("pool", "detach")
	h.refused(replace, "not lost", metadata) // the data alone are away
	h.check(os.Rename(data+".away", data))
	h.refused(replace, "not lost", metadata)
	h.check(os.Rename(metadata, metadata+".away"))
	h.refused(replace, data, "not empty") // the metadata alone are away
	h.refused(append(replace, "--data", "/dev/no-such-disk", "--metadata", metadata), "no device")
	h.check(os.Rename(metadata+".away", metadata))
	row, err := h.store.Pool(t.Context())
	if err != nil || row.State != "ready" || row.Name == "another" {
		t.Fatalf("after refusals: %+v, %v", row, err)
	}
	h.start() // it is the same as ever
	h.stop()
	h.whole()

	h.consumer("pool", "detach")
	h.check(os.RemoveAll(dir))
	h.refused([]string{"run"}, "--replace")
	h.check(os.Remove(filepath.Join(h.dir, "state", "blobs", "2.tar")))
	h.consumer(replace...)
	h.refused(replace, "not lost")
	if now, err := h.store.Pool(t.Context()); err != nil || now.UUID == row.UUID || now.State != "ready" {
		t.Errorf("the new pool is %+v, %v: should the old one come back, it would be taken for it", now, err)
	}
	h.start()
	h.running() // before, the journal still says that all is well
	for _, key := range keys[:2] {
		if got := h.active(key); got.Tree.Digest != digests[key] {
			t.Errorf("%s holds %s, was %s", key, got.Tree.Digest, digests[key])
		}
	}
	if got := h.ends("images/c.tar"); got.State != store.Removed {
		t.Errorf("the removed image is %s", got.State)
	}
	h.stop()
	h.whole()
	if out := h.consumer("verify", "--all"); strings.Count(out, "as sealed") != 2 {
		t.Errorf("verify: %s", out)
	}
}

// A backup that was made while images came in takes the place of a lost database: what it knows is whole, what came after it is reported as
// foreign, left alone, and made again by a backfill.
func TestBackupAndRestore(t *testing.T) {
	h := newHost(t)
	file := filepath.Join(h.dir, "copy.db")
	h.start()
	h.running()
	for i := range 6 {
		h.put(fmt.Sprintf("images/%d.tar", i), rootfs("hello", 3))
		h.consumer("backup", "--force", file)
	}
	known := map[string]bool{}
	for i := range 6 {
		h.active(fmt.Sprintf("images/%d.tar", i))
	}
	h.consumer("backup", "--force", file)
	h.put("images/later.tar", rootfs("later", 3))
	later := h.active("images/later.tar")
	devices, err := h.store.DevicesOf(t.Context(), later.ID)
	h.check(err)
	h.drained()
	h.stop()

	h.check(h.store.Close())
	db := filepath.Join(h.dir, "state", "consumer.db")
	for _, suffix := range []string{"", "-wal", "-shm"} {
		h.check(os.RemoveAll(db + suffix))
	}
	text, err := os.ReadFile(file)
	h.check(err)
	h.check(os.WriteFile(db, text, 0o600))
	h.start()
	h.running()
	h.store, err = store.OpenExisting(t.Context(), db)
	h.check(err)
	images, err := h.store.Images(t.Context())
	h.check(err)
	for _, img := range images {
		known[img.Key] = img.State == store.Active
	}
	if len(known) != 6 || known["images/later.tar"] {
		t.Errorf("restored: %v", known)
	}
	pool, err := invariants.OpenPool(t.Context(), h.store)
	h.check(err)
	defer pool.Close()
	reported, err := os.ReadFile(h.log.Name())
	h.check(err)
	for _, d := range devices {
		if want := fmt.Sprintf("thin device %d\"", d.ID); !strings.Contains(string(reported[h.began:]), want) {
			t.Errorf("the log does not report %s", want)
		}
		h.check(pool.Deactivate(devmapper.ID(d.ID)))
		h.check(pool.Delete(devmapper.ID(d.ID))) // that it can be deleted shows that it was left alone
	}
	h.tells("1 enqueued", "backfill")
	if again := h.active("images/later.tar"); again.Tree.Digest != later.Tree.Digest {
		t.Errorf("made again: %+v", again.Tree)
	}
	h.stop()
	h.whole()
}

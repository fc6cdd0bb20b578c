package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imagemanager.internal/internal/store"
	"imagemanager.internal/test/disks"
	tarballs "imagemanager.internal/test/images"
)

// digestOf returns the digest of a file or of a whole disk.
func (h *host) digestOf(path string) string {
	h.T.Helper()
	f, err := os.Open(path)
	h.Check(err)
	defer f.Close()
	sum := sha256.New()
	_, err = io.Copy(sum, f)
	h.Check(err)
	return hex.EncodeToString(sum.Sum(nil))
}

// makeImageAndDetach makes one image and detaches the pool.
func (h *host) makeImageAndDetach(key string) {
	h.T.Helper()
	h.Start()
	h.put(key, tarballs.RootFS("hello", 3))
	h.WaitActive(key)
	h.WaitDrained()
	h.Stop()
	h.Consumer("pool", "detach")
}

// copyFile copies a file of a pool that is detached.
func (h *host) copyFile(path string) string {
	h.T.Helper()
	to := filepath.Join(h.T.TempDir(), filepath.Base(path))
	disks.Run(h.T, "cp", "--sparse=always", path, to)
	return to
}

// expectPoolRefused starts the daemon, which must end with exit code 3 and these words
// without writing to any of the files.
func (h *host) expectPoolRefused(files []string, says ...string) {
	h.T.Helper()
	var before []string
	for _, f := range files {
		before = append(before, h.digestOf(f))
	}
	h.Start()
	h.WaitFor("the daemon ends, or runs", func() bool {
		select {
		case <-h.Done():
			return true
		default:
			return h.IsRunning()
		}
	})
	if h.IsRunning() {
		h.T.Error("the daemon starts")
		h.Kill()
	} else if code := h.ExitCode(); code != 3 {
		h.T.Errorf("exit code %d, want 3: the machine is not as it must be", code)
	}
	out := string(h.NewestLog())
	for _, want := range says {
		if !strings.Contains(out, want) {
			h.T.Errorf("%s\nwant %q", out, want)
		}
	}
	if bytes.Contains(h.NewestLog(), []byte("files agree")) {
		h.T.Error("reconcile found no difference")
	}
	disks.Run(h.T, "sync")
	for i, f := range files {
		if h.digestOf(f) != before[i] {
			h.T.Errorf("%s was written to", f)
		}
	}
}

// makeForeignDisk makes a file with a file system that is not the daemon's.
func (h *host) makeForeignDisk(path string, size int64) {
	h.T.Helper()
	f, err := os.Create(path)
	h.Check(err)
	h.Check(f.Truncate(size))
	h.Check(f.Close())
	disks.Run(h.T, "mke2fs", "-q", "-F", "-t", "ext4", "-L", "precious", path)
}

// After a reboot the kernel has numbered the disks differently. The start is refused,
// nothing is written to any of them, and the error says where the pool is. With that
// command it is found, and works on.
func TestDataDeviceIsAnotherDisk(t *testing.T) {
	h := bareHost(t)
	dir := t.TempDir()
	files := map[string]string{}
	for name, size := range map[string]int64{"data": 64 << 20, "metadata": 8 << 20, "free": 64 << 20} {
		files[name] = disks.Loop(t, filepath.Join(dir, name), size)
	}
	h.install(poolName(t), "0", nil, "--data", files["data"], "--metadata", files["metadata"])
	h.makeImageAndDetach("images/a.tar")

	precious := filepath.Join(dir, "precious")
	h.makeForeignDisk(precious, 64<<20)
	disks.Run(t, "losetup", "--detach", files["data"])
	disks.Run(t, "losetup", files["data"], precious)
	all := []string{precious, filepath.Join(dir, "data"), filepath.Join(dir, "metadata")}
	h.expectPoolRefused(all, "does not hold this pool's data")

	disks.Run(t, "losetup", "--detach", files["free"])
	disks.Run(t, "losetup", files["free"], filepath.Join(dir, "data"))
	h.expectPoolRefused(all, "consumer pool locate --data "+files["free"]+" --metadata "+files["metadata"])
	h.expectFailure([]string{"pool", "locate", "--data", files["data"]}, "does not hold this pool's data")
	h.expectFailure([]string{"pool", "locate"}, "--data or --metadata")
	h.Consumer("pool", "locate", "--data", files["free"])
	h.Consumer("pool", "detach")
	h.makeImageAndDetach("images/b.tar")
	h.Start()
	h.Stop()
	h.Look()
	if before := disks.Run(t, "e2fsck", "-fn", precious); !strings.Contains(before, "precious") {
		t.Errorf("the other disk: %s", before)
	}
}

// The pool's data file is replaced by another of its size, as by a restore without the
// large file, or where a mount is missing.
func TestDataFileIsAnother(t *testing.T) {
	h := newSizedHost(t, "64MiB")
	h.makeImageAndDetach("images/a.tar")
	data := filepath.Join(h.State, "pool", "data.img")
	metadata := filepath.Join(h.State, "pool", "metadata.img")
	h.Check(os.Rename(data, data+".right"))
	h.makeForeignDisk(data, 64<<20)
	h.expectPoolRefused([]string{data, metadata}, data, "does not hold this pool's data")
	h.Check(os.Truncate(data, 0)) // a hole of the right size
	h.Check(os.Truncate(data, 64<<20))
	h.expectPoolRefused([]string{data, metadata}, "does not hold this pool's data")
	h.Check(os.Rename(data+".right", data))
	h.makeImageAndDetach("images/b.tar")
}

// A part of the pool comes from an earlier time than the others: the data, the metadata,
// both beside today's database. Each is refused and left as it is; with the right parts
// back, all is well. A database that is older than its pool is what a backup is for.
func TestPartsOfAnotherTime(t *testing.T) {
	h := newSizedHost(t, "64MiB")
	data := filepath.Join(h.State, "pool", "data.img")
	metadata := filepath.Join(h.State, "pool", "metadata.img")
	h.makeImageAndDetach("images/a.tar")
	oldData, oldMetadata := h.copyFile(data), h.copyFile(metadata)
	h.makeImageAndDetach("images/b.tar")
	newData, newMetadata := h.copyFile(data), h.copyFile(metadata)
	put := func(from, to string) {
		t.Helper()
		disks.Run(t, "cp", "--sparse=always", from, to)
	}
	both := []string{data, metadata}
	put(oldData, data)
	h.expectPoolRefused(both, "the data on "+data+" are a copy from an earlier time")
	put(newData, data)
	put(oldMetadata, metadata)
	h.expectPoolRefused(both, "the metadata on "+metadata+" are a copy from an earlier time")
	put(oldData, data)
	h.expectPoolRefused(both, "a copy from an earlier time", "than the journal is", "consumer recover")

	put(newData, data)
	put(newMetadata, metadata)
	h.Start()
	h.Stop()
	h.Look()
	if out := h.Consumer("verify", "--all"); strings.Count(out, "as sealed") != 2 {
		t.Errorf("verify: %s", out)
	}
}

// A copy that was made while the daemon ran is told from the pool after the daemon has
// compared journal, pool and files once more, without a restart in between.
func TestCopyOfARunningPool(t *testing.T) {
	h := newSizedHost(t, "64MiB")
	data := filepath.Join(h.State, "pool", "data.img")
	h.Start()
	h.put("images/a.tar", tarballs.RootFS("hello", 3))
	h.WaitActive("images/a.tar")
	old := h.copyFile(data)
	row, err := h.Store.Pool(t.Context())
	h.Check(err)
	h.WaitFor("the generation rises", func() bool {
		now, err := h.Store.Pool(t.Context())
		h.Check(err)
		return now.Generation > row.Generation
	})
	h.Stop()
	h.Consumer("pool", "detach")
	disks.Run(t, "cp", "--sparse=always", old, data)
	h.expectPoolRefused([]string{data}, "the data on "+data+" are a copy from an earlier time")
}

// Killed at any point of the renewal of the stamp, the next start goes on.
func TestKilledInRenewal(t *testing.T) {
	h := newSizedHost(t, "64MiB", "RECONCILE_INTERVAL=0")
	var generation uint64
	points := []string{
		"before:stamp:announce", "after:stamp:announce", "before:set_transaction_id:pool",
		"after:set_transaction_id:pool",
		"before:stamp:confirm", "after:stamp:confirm", "before:pool:generation:", "after:pool:generation:",
	}
	for i, at := range points {
		for _, detach := range []bool{true, false} {
			h.Start("CIM_CRASH_AT=" + at)
			<-h.Done()
			if !h.IsKilled() {
				t.Errorf("not killed at %s", at)
			}
			if detach {
				h.Consumer("pool", "detach")
			}
		}
		h.makeImageAndDetach(fmt.Sprintf("images/%d.tar", i))
		row, err := h.Store.Pool(t.Context())
		h.Check(err)
		if row.Generation <= generation {
			t.Errorf("after %s the generation is %d, was %d", at, row.Generation, generation)
		}
		generation = row.Generation
	}
	h.Start()
	h.Stop()
	h.Look()
	if list, err := h.Store.Images(t.Context()); err != nil || len(list) != len(points) ||
		list[0].State != store.StateActive {
		t.Errorf("%+v, %v", list, err)
	}
}

// Package powercut cuts the power of a host whose disk loses what it was not told to
// keep.
//
// State directory, pool metadata and pool data lie on one disk, under the kernel's log of
// writes (dm-log-writes), so that there is one order of all writes. The daemon takes
// images from the queue, snapshots are made, the pool grows. Afterwards the disk is built
// again as it may have been at many moments: what was flushed until then is there, and of
// what was not yet flushed nothing, all, some writes, or some 4 KiB blocks. On each such
// disk the daemon is started again and must come to the end as if nothing had happened;
// and what it had promised before the cut must be there, above all the image of every
// message that it had deleted.
//
// CIM_POWERCUT_STATES says how many states (default 6). CIM_POWERCUT_SEED repeats a
// choice, though not the order of the writes, which is a little different in every run.
package powercut

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"imagemanager.internal/test/disks"
	machine "imagemanager.internal/test/host"
)

const (
	defaultStates = 6
	logSize       = 2 << 30 // sparse
)

// number is a setting of the test.
func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	check(t, err)
	return n
}

func TestPowerCut(t *testing.T) {
	machine.NeedPool(t)
	dir := t.TempDir()
	mnt := filepath.Join(dir, "mnt")
	check(t, os.Mkdir(mnt, 0o700))
	began := time.Now()
	logFile, diskFile := filepath.Join(dir, "log.img"), filepath.Join(dir, "disk.img")
	if !t.Run("workload", func(t *testing.T) { workload(t, mnt, diskFile, logFile) }) {
		return
	}
	f, log := openLog(t, logFile)
	report(t, log, time.Since(began))
	checkComplete(t, log, f, diskFile)
	seed := number(t, "CIM_POWERCUT_SEED", rand.Uint64N(1e6))
	chosen := cuts(log, int(number(t, "CIM_POWERCUT_STATES", defaultStates)), seed)
	t.Logf("%d states, seed %d", len(chosen), seed)
	began = time.Now()
	for i, c := range chosen {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Logf("%s; marks before: %q", c, marked(log, c.at, ""))
			disk := filepath.Join(t.TempDir(), "disk.img")
			rebuild(t, log, f, c, disk)
			checkRecovery(t, mnt, disk, marked(log, c.at, ""))
		})
	}
	t.Logf("%d states in %s", len(chosen), time.Since(began).Round(time.Millisecond))
}

// report says what was logged, and that the log is one worth replaying.
func report(t *testing.T, log []entry, took time.Duration) {
	t.Helper()
	writes, flushes, fuas, bytes := 0, 0, 0, int64(0)
	for _, e := range log {
		switch {
		case e.is(flush):
			flushes++
		case e.is(fua):
			fuas++
		case !e.is(mark | discard):
			writes++
		}
		if !e.is(discard) {
			bytes += e.size
		}
	}
	t.Logf("workload: %s, %d writes, %d with FUA, %d MiB, %d flushes",
		took.Round(time.Millisecond), writes, fuas, bytes/mib, flushes)
	deleted := map[string]bool{} // a call that is repeated leaves two marks
	for _, key := range marked(log, len(log), markDeleted) {
		deleted[key] = true
	}
	if len(deleted) != len(images()) {
		t.Fatalf("deletions in the log: %v, want one for each of %d images", deleted, len(images()))
	}
}

// workload is what the host does until its power fails, all of it logged.
func workload(t *testing.T, mnt, disk, log string) {
	device := disks.Loop(t, disk, diskSize)
	// The log has the writes of a flush where that has ended. A flush with FUA would take
	// the loop device two flushes, so a later one could end first, and the log would have
	// writes in an order in which no disk saw them.
	disks.WriteThrough(t, device)
	logged := disks.Map(t, logName, fmt.Sprintf("0 %d log-writes %s %s",
		diskSize/disks.Sector, device, disks.Loop(t, log, logSize)))
	h := newHost(t, mnt, logged, dataSize, func(state string) {
		disks.Run(t, "mkfs.ext4", "-q", "-E", "nodiscard,assume_storage_prezeroed=1", state)
		writeMark(t, markStart)
	})
	h.Cloud = newCloud(t, func(key string) { writeMark(t, markDeleted+key) })
	check(t, h.Cloud.Notify(t.Context()))
	h.createPool()
	writeMark(t, markPool)
	h.OpenStore()
	h.put(images()[:3]...)
	h.Start()
	h.waitImages(images()[:3]...)
	h.Stop()
	h.Consumer("snapshot", images()[0].key)
	writeMark(t, markFurther)
	writeMark(t, markLarger)
	disks.Swap(t, dataName, disks.Linear(logged, stateSize+metadataSize, grownSize))
	h.Consumer("pool", "grow", "--data-size", fmt.Sprint(grownSize))
	h.put(images()[3:]...)
	h.Start()
	h.waitImages(images()...)
	h.Stop()
}

// checkComplete checks that the log, replayed to its end, makes the disk that the host
// has. If not, no state before the end can be trusted, and a fault that one shows is not
// the daemon's.
func checkComplete(t *testing.T, log []entry, from *os.File, path string) {
	t.Helper()
	replayed := filepath.Join(t.TempDir(), "disk.img")
	rebuild(t, log, from, cut{at: len(log), mode: "none"}, replayed)
	has, err := os.Open(path)
	check(t, err)
	defer has.Close()
	gets, err := os.Open(replayed)
	check(t, err)
	defer gets.Close()
	a, b := make([]byte, tearsAt), make([]byte, tearsAt)
	for at := int64(0); at < diskSize; at += tearsAt {
		_, err := has.ReadAt(a, at)
		check(t, err)
		_, err = gets.ReadAt(b, at)
		check(t, err)
		if bytes.Equal(a, b) {
			continue
		}
		t.Errorf("4 KiB at %d of the disk are not what the log makes of them: %.16x, not %.16x", at, a, b)
		for i, e := range log {
			if e.offset < at+tearsAt && at < e.offset+e.size && !e.is(mark) {
				t.Logf("entry %d: %d bytes at %d, flags %d", i, e.size, e.offset, e.flags)
			}
		}
	}
	if t.Failed() {
		t.FailNow()
	}
}

// rebuild makes the disk of a state.
func rebuild(t *testing.T, log []entry, from *os.File, c cut, path string) {
	t.Helper()
	f, err := os.Create(path)
	check(t, err)
	defer f.Close()
	check(t, f.Truncate(diskSize))
	check(t, c.replay(log, from, f))
}

package powercut

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"imagemanager.internal/test/disks"
	machine "imagemanager.internal/test/host"
)

const (
	mib = int64(1) << 20

	// The slices of the disk. The data come last: they grow.
	stateSize    = 128 * mib
	metadataSize = 8 * mib
	dataSize     = 256 * mib
	grownSize    = 320 * mib
	diskSize     = stateSize + metadataSize + grownSize

	logName      = "cut-log"
	stateName    = "cut-state"
	metadataName = "cut-metadata"
	dataName     = "cut-data"

	// What the test writes into the log.
	markStart   = "start"
	markPool    = "pool"    // `pool create` has succeeded
	markFurther = "further" // `snapshot` has succeeded
	markLarger  = "larger"  // the operator is about to enlarge the data's device
	markDeleted = "deleted:"
)

// host is a machine with one disk, sliced: a file system for the state directory, the
// pool's metadata, the pool's data.
type host struct{ *machine.Host }

// newHost slices a disk, mounts its file system, and sees to it that nothing of that is
// left. The file system is mounted at the same place in every state: the journal knows
// paths.
func newHost(t *testing.T, mnt, disk string, data int64, prepare func(state string)) *host {
	t.Helper()
	h := &host{&machine.Host{T: t, State: filepath.Join(mnt, "state")}}
	h.Env = []string{"LISTEN_ADDR=", "SQS_DRAIN=50ms", "STATE_MIN_FREE=0"}
	state := disks.Map(t, stateName, disks.Linear(disk, 0, stateSize))
	disks.Map(t, metadataName, disks.Linear(disk, stateSize, metadataSize))
	disks.Map(t, dataName, disks.Linear(disk, stateSize+metadataSize, data))
	prepare(state)
	if err := unix.Mount(state, mnt, "ext4", unix.MS_NOATIME, ""); err != nil {
		t.Fatalf("mount %s: %v", state, err)
	}
	t.Cleanup(func() { check(t, unix.Unmount(mnt, 0)) })
	h.OpenLog(filepath.Join(t.TempDir(), "daemon.log"))
	t.Cleanup(h.Close)
	return h
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (h *host) createPool() {
	h.T.Helper()
	h.Consumer("pool", "create", "--name", "cut", "--data", "/dev/mapper/"+dataName, "--metadata", "/dev/mapper/"+
		metadataName)
}

// waitImages waits until the images are what they should become, and their messages gone.
func (h *host) waitImages(want ...image) {
	h.T.Helper()
	for _, w := range want {
		if img := h.WaitEnded(w.key); img.State != w.ends {
			h.T.Errorf("%s ended %s (%s), want %s", w.key, img.State, img.Reason, w.ends)
		}
		if list := h.ImagesOf(w.key); len(list) > 1 {
			h.T.Fatalf("%d images of one object: %+v", len(list), list)
		}
	}
	h.WaitDrained()
}

// writeMark writes into the log of writes.
func writeMark(t testing.TB, text string) {
	t.Helper()
	disks.Run(t, "dmsetup", "message", logName, "0", "mark", text)
}

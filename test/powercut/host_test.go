package powercut

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/store"
	"imagemanager.internal/test/cloud"
	"imagemanager.internal/test/disks"
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

// host is a machine with one disk, sliced: a file system for the state directory, the pool's metadata, the pool's data.
type host struct {
	t      *testing.T
	mnt    string // where the file system of the state directory is mounted: in every state the same, the journal knows paths
	cloud  *cloud.Bucket
	store  *store.Store
	daemon *exec.Cmd
	log    *os.File
	began  int64 // where the log of the newest start begins
}

// newHost slices a disk, mounts its file system, and sees to it that nothing of that is left.
func newHost(t *testing.T, mnt, disk string, data int64, prepare func(state string)) *host {
	t.Helper()
	h := &host{t: t, mnt: mnt}
	state := disks.Map(t, stateName, disks.Linear(disk, 0, stateSize))
	disks.Map(t, metadataName, disks.Linear(disk, stateSize, metadataSize))
	disks.Map(t, dataName, disks.Linear(disk, stateSize+metadataSize, data))
	prepare(state)
	if err := unix.Mount(state, mnt, "ext4", unix.MS_NOATIME, ""); err != nil {
		t.Fatalf("mount %s: %v", state, err)
	}
	t.Cleanup(func() { check(t, unix.Unmount(mnt, 0)) })
	var err error
	h.log, err = os.Create(filepath.Join(t.TempDir(), "daemon.log"))
	check(t, err)
	t.Cleanup(h.end)
	return h
}

// end detaches the pool, whatever state the test left, and shows the log of a failed test.
func (h *host) end() {
	if h.daemon != nil {
		_ = h.daemon.Process.Kill()
		_ = h.daemon.Wait() // the error says that it was killed
	}
	if h.store != nil {
		check(h.t, h.store.Close())
	}
	if out, code := h.try("pool", "detach"); code != 0 {
		h.t.Errorf("pool detach: %d %s", code, out)
	}
	if h.t.Failed() {
		text, _ := os.ReadFile(h.log.Name())
		h.t.Logf("daemon log, its end:\n%s", text[max(0, len(text)-8000):])
	}
	check(h.t, h.log.Close())
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (h *host) stateDir() string { return filepath.Join(h.mnt, "state") }

func (h *host) env() []string {
	url, queue := "http://127.0.0.1:1", "none" // for commands that need neither
	if h.cloud != nil {
		url, queue = h.cloud.URL, h.cloud.Queue
	}
	return append(os.Environ(),
		"AWS_ENDPOINT_URL="+url, "AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=x", "S3_BUCKET="+bucket, "SQS_QUEUE_URL="+queue,
		"STATE_DIR="+h.stateDir(), "LISTEN_ADDR=", "LOG_LEVEL=debug", "DEVICE_SIZE=64MiB",
		"SQS_WAIT=1s", "SQS_DRAIN=50ms", "SQS_VISIBILITY=10s", "RETRY_BACKOFF=1ms", "SHUTDOWN_GRACE=1s", "STATE_MIN_FREE=0")
}

// program is the consumer that the Makefile built.
func (h *host) program() string {
	h.t.Helper()
	path := os.Getenv("CONSUMER_BIN")
	if path == "" {
		h.t.Fatal("CONSUMER_BIN is not set: run `make test-uml`, or build ./cmd/consumer with -tags failpoint and name it there")
	}
	return path
}

// consumer runs a command that must succeed and returns what it prints.
func (h *host) consumer(args ...string) string {
	h.t.Helper()
	out, code := h.try(args...)
	if code != 0 {
		h.t.Fatalf("consumer %s: exit code %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

func (h *host) try(args ...string) (string, int) {
	h.t.Helper()
	cmd := exec.Command(h.program(), args...)
	cmd.Env = h.env()
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func (h *host) createPool() {
	h.t.Helper()
	h.consumer("pool", "create", "--name", "cut", "--data", "/dev/mapper/"+dataName, "--metadata", "/dev/mapper/"+metadataName)
}

// openStore opens the journal beside the daemon.
func (h *host) openStore() {
	h.t.Helper()
	var err error
	h.store, err = store.OpenExisting(h.t.Context(), filepath.Join(h.stateDir(), "consumer.db"))
	check(h.t, err)
}

func (h *host) start() {
	h.t.Helper()
	h.daemon = exec.Command(h.program(), "run")
	h.daemon.Env = h.env()
	h.daemon.Stderr = h.log
	var err error
	h.began, err = h.log.Seek(0, io.SeekEnd)
	check(h.t, err)
	check(h.t, h.daemon.Start())
	h.eventually("the daemon runs", func() bool {
		text, err := os.ReadFile(h.log.Name())
		check(h.t, err)
		return bytes.Contains(text[h.began:], []byte(`"message":"running"`))
	})
}

// stop ends the daemon by SIGTERM; it must exit with 0.
func (h *host) stop() {
	h.t.Helper()
	check(h.t, h.daemon.Process.Signal(syscall.SIGTERM))
	if err := h.daemon.Wait(); err != nil {
		h.t.Errorf("daemon: %v", err)
	}
	h.daemon = nil
}

// eventually polls until cond holds; it fails the test after a minute.
func (h *host) eventually(what string, cond func() bool) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			h.t.Fatalf("not in time: %s", what)
		}
	}
}

// ends waits until the images are what they should become, and their messages gone.
func (h *host) ends(want ...image) {
	h.t.Helper()
	for _, w := range want {
		var img store.Image
		h.eventually(w.key+" ends", func() bool {
			list, err := h.store.ByKey(h.t.Context(), w.key)
			check(h.t, err)
			if len(list) > 1 {
				h.t.Fatalf("%d images of one object: %+v", len(list), list)
			}
			if len(list) == 1 {
				img = list[0]
			}
			return len(list) == 1 && img.State != store.Pending
		})
		if img.State != w.ends {
			h.t.Errorf("%s ended %s (%s), want %s", w.key, img.State, img.Reason, w.ends)
		}
	}
	h.eventually("the queue is empty", func() bool {
		drained, err := h.cloud.IsDrained(h.t.Context())
		check(h.t, err)
		return drained
	})
}

// writeMark writes into the log of writes.
func writeMark(t testing.TB, text string) {
	t.Helper()
	disks.Run(t, "dmsetup", "message", logName, "0", "mark", text)
}

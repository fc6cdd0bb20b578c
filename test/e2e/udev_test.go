package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"imagemanager.internal/internal/store"
	tarballs "imagemanager.internal/test/images"
)

// needUdevd skips the test without a udevd that may be stopped, as `make test-udev` has.
func needUdevd(t *testing.T) (udevadm func(args ...string)) {
	t.Helper()
	if os.Getenv("CIM_REQUIRE_UDEV") != "1" {
		t.Skip("needs a udevd that may be held up, run by `make test-udev`")
	}
	return func(args ...string) {
		t.Helper()
		if out, err := exec.Command("udevadm", args...).CombinedOutput(); err != nil {
			t.Errorf("udevadm %v: %v: %s", args, err, out)
		}
	}
}

// setUdevdQueue lets udevd process events, or stops it. The command is repeated: udevd
// ignores messages that come before it has set up the connection ("invalid sender uid").
func setUdevdQueue(udevadm func(args ...string), what string) {
	for range 3 {
		udevadm("control", "--"+what+"-exec-queue")
	}
}

// keepUdevdBehind stops and continues udevd's queue until stop is called.
func keepUdevdBehind(udevadm func(args ...string)) (stop func()) {
	enough, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			setUdevdQueue(udevadm, "stop")
			<-time.After(1500 * time.Millisecond)
			setUdevdQueue(udevadm, "start")
			select {
			case <-enough:
				return
			case <-time.After(400 * time.Millisecond):
			}
		}
	}()
	return func() { close(enough); <-done }
}

// udevd falls behind and catches up again while images are made and removed, as at boot
// with many devices: no attempt of any image fails for it, and in the end every path is
// there.
func TestUdevdBehind(t *testing.T) {
	udevadm := needUdevd(t)
	h := newHost(t)
	h.Start()
	h.WaitRunning()
	stop := keepUdevdBehind(udevadm)
	const n = 16
	key := func(i int) string { return fmt.Sprintf("images/%02d.tar", i) }
	for i := range n {
		h.put(key(i), tarballs.RootFS("hello", 20))
		if i < 2 {
			continue
		}
		if h.WaitActive(key(i - 2)); i%2 == 0 {
			h.Consumer("rm", "--force", key(i-2))
		}
	}
	h.WaitFor("all images end",
		func() bool { return h.countImages(store.StateActive)+h.countImages(store.StateRemoved) == n })
	stop()
	for i := range n {
		for _, reason := range h.failures(key(i)) {
			t.Errorf("%s: a failed attempt: %s", key(i), reason)
		}
	}
	udevadm("settle", "--timeout=30")
	images, err := h.Store.Images(t.Context())
	h.Check(err)
	for _, img := range images {
		snapshots, err := h.Store.SnapshotsOf(t.Context(), img.ID)
		h.Check(err)
		for _, s := range snapshots {
			if _, err := os.Stat(s.Path); err != nil {
				t.Errorf("in the end: %v", err)
			}
		}
	}
	h.Stop()
	h.Look()
}

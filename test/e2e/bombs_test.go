package e2e

import (
	"syscall"
	"testing"
	"time"

	"imagemanager.internal/internal/store"
	tarballs "imagemanager.internal/test/images"
)

// Two archives of 4 MB, as many as there are workers, have an index that leads to others
// without end. They are refused as what they are, the image behind them is made, and the
// daemon stops when it is told to.
func TestIndexesWithoutEnd(t *testing.T) {
	h := newHost(t, "UNPACK_TIMEOUT=10s", "MAX_ATTEMPTS=2")
	h.Start()
	h.WaitRunning()
	bomb := tarballs.Tar(tarballs.Nested(5_000, 5)...)
	bombs := []string{"images/bomb-1.tar", "images/bomb-2.tar"}
	h.put(bombs[0], bomb)
	h.put(bombs[1], append(bomb, make([]byte, 512)...))
	h.put("images/good.tar", tarballs.RootFS("hello", 3))
	h.checkReadable(h.WaitActive("images/good.tar"))
	for _, key := range bombs {
		img := h.WaitEnded(key)
		if img.State != store.StateRejected || img.Attempt > 2 { // one of each stage
			t.Errorf("%s is %s at attempt %d: %s", key, img.State, img.Attempt, img.Reason)
		}
	}
	h.WaitDrained()
	h.waitClaimed()
	h.Signal(syscall.SIGTERM)
	select {
	case <-h.Done():
	case <-time.After(20 * time.Second):
		t.Error("told to stop 20 s ago, and still there")
		h.Kill()
	}
}

package e2e

import (
	"strings"
	"testing"
)

// A pool that is low on space pauses intake: the message stays visible, the running snapshot serves on, the log says what to do. Grown
// beside the running daemon, the pool takes the image.
func TestPoolLowThenGrown(t *testing.T) {
	h := newSizedHost(t, "64MiB", "POOL_MIN_FREE_DATA=90")
	h.start()
	big := entry{name: "var/big", body: strings.Repeat("0123456789abcdef", 1<<19), mode: 0o644} // 8 MiB, more than a tenth
	h.put("images/a.tar", rootfs("hello", 3, big))
	img := h.active("images/a.tar")
	h.drained()
	h.put("images/b.tar", rootfs("world", 3, big))
	h.logged("intake paused", 1)
	snapshots, err := h.store.SnapshotsOf(t.Context(), img.ID)
	h.check(err)
	if got := h.hello(snapshots[0].Path); got != "hello" {
		t.Errorf("the snapshot reads %q while intake is paused", got)
	}
	if images, err := h.store.ByKey(t.Context(), "images/b.tar"); err != nil || len(images) != 0 {
		t.Errorf("taken although the pool is low: %+v, %v", images, err)
	}
	if out, code := h.try("pool", "grow", "--data-size", "1MiB"); code == 0 {
		t.Errorf("the pool was made smaller: %s", out)
	}
	if out := h.consumer("pool", "grow", "--data-size", "1GiB"); !strings.Contains(out, "of 1GiB") {
		t.Errorf("pool grow: %s", out)
	}
	h.active("images/b.tar")
	h.logged("intake resumed", 1)
	h.drained()
	h.stop()
	if out := h.consumer("pool", "repair"); !strings.Contains(out, "false") { // sound: nothing to do
		t.Errorf("pool repair: %s", out)
	}
	h.start()
	h.stop()
	h.whole()
}

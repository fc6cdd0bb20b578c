package e2e

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"imagemanager.internal/internal/store"
	tarballs "imagemanager.internal/test/images"
)

// Three hosts with pools of their own compete for one queue; one of them is killed midway
// and stays away. Its work is taken over when its messages become visible again: every
// image is active exactly once, on one of the hosts that are left or in what the dead one
// had finished. CIM_FLEET_IMAGES sets how many images (at least 12).
func TestThreeHosts(t *testing.T) {
	n := 30
	if v, err := strconv.Atoi(os.Getenv("CIM_FLEET_IMAGES")); err == nil {
		n = v
	}
	a := newHost(t, "SQS_VISIBILITY=10s")
	fleet := []*host{a, a.addHost("fleet-b", "SQS_VISIBILITY=10s"), a.addHost("fleet-c", "SQS_VISIBILITY=10s")}
	for _, h := range fleet {
		h.Start()
	}
	for _, h := range fleet { // a host that starts late finds nothing left to do
		h.WaitRunning()
	}
	for i := range n {
		a.put(fmt.Sprintf("images/%03d.tar", i), tarballs.RootFS(fmt.Sprint(i), 3))
	}
	count := func(h *host) int {
		counts, err := h.Store.Counts(t.Context())
		h.Check(err)
		return counts[store.StateActive]
	}
	victim := fleet[2]
	victim.WaitLonger(time.Duration(n)*time.Second, "the third host has work in hand", func() bool {
		pending, err := victim.Store.PendingImages(t.Context())
		victim.Check(err)
		return count(victim) >= 1 && len(pending) > 0
	})
	victim.Kill()
	a.WaitLonger(time.Duration(n)*time.Second, "the queue is empty", a.IsDrained)
	active := map[string]int{}
	for _, h := range fleet {
		images, err := h.Store.Images(t.Context())
		h.Check(err)
		for _, img := range images {
			if img.State == store.StateActive {
				active[img.Key]++
			} else if h != victim {
				t.Errorf("%s is %s on a living host", img.Key, img.State)
			}
		}
		t.Logf("active: %d", count(h))
	}
	twice := 0
	for i := range n {
		switch got := active[fmt.Sprintf("images/%03d.tar", i)]; {
		case got == 0:
			t.Errorf("image %d is nowhere", i)
		case got > 1:
			twice++
		}
	}
	// What the victim had committed, but whose message it could not delete any more, is
	// done again elsewhere: at most what it held.
	if twice > 8 {
		t.Errorf("%d images are active twice", twice)
	}
	for _, h := range fleet[:2] {
		h.Stop()
		h.Look()
	}
}

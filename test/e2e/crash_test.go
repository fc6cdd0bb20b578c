package e2e

import (
	"fmt"
	"testing"
	"time"
)

// Killed at every event of the journal, before it is durable and after it, the daemon finishes the image on its next start without
// waiting for the queue, and leaves nothing over.
func TestKilledAtEveryEvent(t *testing.T) {
	h := newHost(t, "SQS_VISIBILITY=600s") // the queue does not help: the message stays invisible
	body := rootfs("hello", 20)
	for i, point := range h.points(body) {
		for _, when := range []string{"before", "after"} {
			key := fmt.Sprintf("images/%d-%s.tar", i, when)
			h.put(key, body)
			h.start("CIM_CRASH_AT=" + when + ":" + point)
			if !h.crashed(30 * time.Second) {
				t.Fatalf("%s %s: the daemon was not killed: build it with -tags failpoint", when, point)
			}
			if when == "before" && i == 0 {
				h.put(key, body) // nothing was durable and the message is invisible: S3 tells once more
			}
			h.start()
			h.active(key)
			h.stop()
			h.whole()
		}
	}
}

// Killed during recovery itself, the next recovery finishes.
func TestKilledTwice(t *testing.T) {
	h := newHost(t, "SQS_VISIBILITY=600s")
	for i, second := range []string{"before:device::deleting", "after:device::deleting", "before:device::gone", "after:device::gone"} {
		key := fmt.Sprintf("images/%d.tar", i)
		h.put(key, rootfs("hello", 5))
		for _, at := range []string{"after:step:unpack:filled", second} {
			h.start("CIM_CRASH_AT=" + at)
			if !h.crashed(30 * time.Second) {
				t.Fatalf("%s: the daemon was not killed", at)
			}
		}
		h.start()
		h.active(key)
		h.stop()
		h.whole()
	}
}

// Acceptance test 5: a kill in the middle of the download and of the unpack, where no event is near.
func TestKilledInBetween(t *testing.T) {
	h := newHost(t, "SQS_VISIBILITY=600s")
	for _, after := range []string{"begun download", "begun unpack", "step unpack formatted"} {
		key := "images/" + after + ".tar"
		h.put(key, rootfs("hello", 400))
		h.start()
		h.reaches(key, after)
		h.kill()
		h.start()
		h.active(key)
		h.stop()
		h.whole()
	}
}

// A stop in the middle rolls back without a verdict, and gives the message back at once.
func TestStoppedInBetween(t *testing.T) {
	h := newHost(t, "SHUTDOWN_GRACE=0s")
	h.put("images/a.tar", rootfs("hello", 400))
	h.start()
	h.reaches("images/a.tar", "step unpack formatted")
	h.stop()
	images, err := h.store.ByKey(t.Context(), "images/a.tar")
	h.check(err)
	if images[0].Failures != 0 || images[0].Running {
		t.Errorf("after a stop: %+v", images[0].Progress)
	}
	devices, err := h.store.Devices(t.Context())
	h.check(err)
	if len(devices) != 0 {
		t.Errorf("devices left: %+v", devices)
	}
	h.start()
	h.active("images/a.tar")
	h.drained()
	h.stop()
	h.whole()
}

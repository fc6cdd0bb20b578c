package e2e

import (
	"fmt"
	"testing"
	"time"

	tarballs "imagemanager.internal/test/images"
)

// Killed at every event of the journal, before it is durable and after it, the daemon
// finishes the image on its next start without waiting for the queue, and leaves nothing
// over.
func TestKilledAtEveryEvent(t *testing.T) {
	h := newHost(t, "SQS_VISIBILITY=600s") // the queue does not help: the message stays invisible
	body := tarballs.RootFS("hello", 20)
	for i, point := range h.journalPoints(body) {
		for _, when := range []string{"before", "after"} {
			key := fmt.Sprintf("images/%d-%s.tar", i, when)
			h.put(key, body)
			h.Start("CIM_CRASH_AT=" + when + ":" + point)
			if !h.WaitKilled(30 * time.Second) {
				t.Fatalf("%s %s: the daemon was not killed: build it with -tags failpoint", when, point)
			}
			if when == "before" && i == 0 {
				h.put(key, body) // nothing was durable and the message is invisible: S3 tells once more
			}
			h.Start()
			h.WaitActive(key)
			h.Stop()
			h.Look()
		}
	}
}

// Killed during recovery itself, the next recovery finishes.
func TestKilledTwice(t *testing.T) {
	h := newHost(t, "SQS_VISIBILITY=600s")
	for i, second := range []string{
		"before:device::deleting", "after:device::deleting", "before:device::gone",
		"after:device::gone",
	} {
		key := fmt.Sprintf("images/%d.tar", i)
		h.put(key, tarballs.RootFS("hello", 5))
		for _, at := range []string{"after:step:unpack:filled", second} {
			h.Start("CIM_CRASH_AT=" + at)
			if !h.WaitKilled(30 * time.Second) {
				t.Fatalf("%s: the daemon was not killed", at)
			}
		}
		h.Start()
		h.WaitActive(key)
		h.Stop()
		h.Look()
	}
}

// Acceptance test 5: a kill in the middle of the download and of the unpack, where no
// event is near.
func TestKilledInBetween(t *testing.T) {
	h := newHost(t, "SQS_VISIBILITY=600s")
	for _, after := range []string{"begun download", "begun unpack", "step unpack formatted"} {
		key := "images/" + after + ".tar"
		h.put(key, tarballs.RootFS("hello", 400))
		h.Start()
		h.waitEvent(key, after)
		h.Kill()
		h.Start()
		h.WaitActive(key)
		h.Stop()
		h.Look()
	}
}

// A stop in the middle rolls back without a verdict, and gives the message back at once.
func TestStoppedInBetween(t *testing.T) {
	h := newHost(t, "SHUTDOWN_GRACE=0s")
	h.put("images/a.tar", tarballs.RootFS("hello", 400, big(40))) // not sealed before the stop
	h.Start()
	h.waitEvent("images/a.tar", "step unpack formatted")
	h.Stop()
	images, err := h.Store.ByKey(t.Context(), "images/a.tar")
	h.Check(err)
	if images[0].Failures != 0 || images[0].Running {
		t.Errorf("after a stop: %+v", images[0].Progress)
	}
	devices, err := h.Store.Devices(t.Context())
	h.Check(err)
	if len(devices) != 0 {
		t.Errorf("devices left: %+v", devices)
	}
	h.Start()
	h.WaitActive("images/a.tar")
	h.WaitDrained()
	h.Stop()
	h.Look()
}

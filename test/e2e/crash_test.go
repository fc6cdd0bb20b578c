package e2e

import "testing"

// Acceptance test 5: a kill in the middle of the download and of the unpack, where no event is near. The kills at every event and ioctl are in test/crash.
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

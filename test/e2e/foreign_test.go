package e2e

import (
	"bytes"
	"slices"
	"testing"

	"imagemanager.internal/internal/devmapper"
	tarballs "imagemanager.internal/test/images"
)

// Thin devices in the pool that the journal does not know are reported, never touched,
// and their ids are not handed out: neither those there at the start, nor one that
// appears while the daemon runs, where its next id would be.
func TestForeignDevices(t *testing.T) {
	h := newHost(t, "RECONCILE_INTERVAL=3s") // device 4 is to be found by an image first
	pool := h.pool()
	h.Check(pool.CreateThin(3))
	h.Start()
	h.WaitRunning()
	h.Check(pool.CreateThin(4))
	h.unclaimed["thin_device"] = 2
	for _, key := range []string{"images/a.tar", "images/b.tar"} {
		h.put(key, tarballs.RootFS("hello", 3))
		h.WaitActive(key)
	}
	h.WaitDrained()
	h.Stop()
	thins, err := pool.Thins()
	h.Check(err)
	for _, foreign := range []devmapper.ID{3, 4} {
		if !slices.ContainsFunc(thins, func(th devmapper.Thin) bool { return th.ID == foreign }) {
			t.Errorf("the foreign device %d is gone", foreign)
		}
	}
	devices, err := h.Store.Devices(t.Context())
	h.Check(err)
	for _, d := range devices {
		if d.ID <= 4 {
			t.Errorf("device %d of the journal is a foreign one", d.ID)
		}
	}
	text := h.Log()
	for says, want := range map[string]bool{
		`"foreign":["thin device 3"]`:          true,
		"thin device 3 is in the pool already": false, "thin device 4 is in the pool already": true,
	} {
		if bytes.Contains(text, []byte(says)) != want {
			t.Errorf("the log says %s: %t, want %t", says, !want, want)
		}
	}
	h.Check(pool.Delete(3))
	h.Check(pool.Delete(4))
	h.Look()
}

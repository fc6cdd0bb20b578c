package doctor

import (
	"testing"

	"imagemanager.internal/test/emulator"
)

// Of what can be looked at, a wrong bucket and a wrong prefix are named.
func TestCheckConnections(t *testing.T) {
	w := newWard(t)
	for _, f := range w.c.CheckConnections(t.Context()) {
		if f.Result != OK {
			t.Errorf("all is well: %+v", f)
		}
	}
	w.c.Prefix = "img/"
	expect(t, w.c.CheckConnections(t.Context()), "notification", Fail, `S3_PREFIX is "img/"`, `S3_PREFIX to "images/"`)
	w.Emulator.Fault(emulator.Fault{Op: "GetBucketNotificationConfiguration", Status: 403, Code: "AccessDenied"})
	for _, f := range w.c.CheckConnections(t.Context()) {
		if f.Result != OK {
			t.Errorf("the daemon works without this right: %+v", f)
		}
	}
	w.c.Bucket = "not-mine"
	expect(t, w.c.CheckConnections(t.Context()), "bucket", Fail, "no bucket not-mine", "S3_BUCKET")
}

// The quick checks of the machine find what the whole ones do.
func TestCheckQuickly(t *testing.T) {
	m := newMachine(t)
	m.MinFreeDisk = 1 << 60
	found := m.CheckQuickly()
	expect(t, found, "disk", Fail, "are free", "STATE_MIN_FREE")
	expect(t, found, "openat2", OK, "works", "")
	allHaveRemedies(t, found)
}

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"imagemanager.internal/internal/store"
	tarballs "imagemanager.internal/test/images"
)

// Acceptance tests 5 and 7: an archive is refused with its reason, its message is
// deleted, and nothing is left over.
func TestRefusals(t *testing.T) {
	h := newHost(t)
	h.Start()
	good := tarballs.RootFS("hello", 5)
	for _, c := range []struct {
		name, key string
		body      []byte
		state     store.State
		says      string
	}{
		{
			name: "traversal", key: "images/dotdot.tar",
			body:  tarballs.RootFS("x", 1, tarballs.Entry{Name: "../../etc/passwd", Body: "x"}),
			state: store.StateViolation,
			says:  "..",
		},
		{
			name: "absolute name", key: "images/abs.tar",
			body: tarballs.RootFS("x", 1, tarballs.Entry{Name: "/etc/passwd", Body: "x"}),
			says: "IMAGE_POLICY=distro",
		},
		{
			name: "absolute link", key: "images/abslink.tar",
			body: tarballs.RootFS("x", 1, tarballs.Entry{Name: "etc/mtab", Link: "/proc/mounts"}),
			says: "IMAGE_POLICY=distro",
		},
		{
			name: "escaping link", key: "images/esc.tar",
			body: tarballs.RootFS("x", 1, tarballs.Entry{Name: "etc/l", Link: "../../../x"}),
			says: "etc/l",
		},
		{
			name: "setuid", key: "images/suid.tar",
			body: tarballs.RootFS("x", 1, tarballs.Entry{Name: "usr/su", Mode: 0o4755, Body: "x"}),
			says: "IMAGE_POLICY=distro",
		},
		{
			name: "device node", key: "images/dev.tar",
			body: tarballs.RootFS("x", 1, tarballs.Entry{Name: "etc/null", Type: '3', Dev: [2]int64{1, 3}}),
			says: "etc/null",
		},
		{name: "truncated", key: "images/short.tar", body: good[:len(good)/2], state: store.StateRejected},
		{
			name: "no image", key: "images/text.tar", body: []byte(strings.Repeat("this is no tar\n", 100)),
			state: store.StateRejected,
		},
		{name: "compressed", key: "images/gz.tar", body: gzipped(good), state: store.StateRejected, says: "gzip"},
		{
			name: "not canonical", key: "images/flat.tar",
			body:  tarballs.Tar(tarballs.Entry{Name: "readme", Body: "x"}),
			state: store.StateRejected, says: "etc",
		},
		{name: "bad key", key: "images/../x.tar", body: good, state: store.StateRejected},
	} {
		h.put(c.key, c.body)
		img := h.WaitEnded(c.key)
		if img.State != store.StateRejected && img.State != store.StateViolation || c.state != "" &&
			img.State != c.state ||
			!strings.Contains(img.Reason, c.says) {
			t.Errorf("%s: ended %s: %q; want %s naming %q", c.name, img.State, img.Reason, c.state, c.says)
		}
		t.Logf("%s: %s: %s", c.name, img.State, img.Reason)
	}
	h.WaitDrained()
	devices, err := h.Store.Devices(t.Context())
	h.Check(err)
	if len(devices) != 0 {
		t.Errorf("devices left: %+v", devices)
	}
	h.Stop()
	h.Look()
}

// What `distro` is for: links rewritten, special bits stripped, devices skipped. The
// journal keeps each change.
func TestDistro(t *testing.T) {
	h := newHost(t, "IMAGE_POLICY=distro")
	h.Start()
	h.put("images/d.tar", tarballs.RootFS("x", 1, tarballs.Entry{Name: "etc/mtab", Link: "/etc/x"},
		tarballs.Entry{Name: "usr/su", Mode: 0o4755, Body: "x"},
		tarballs.Entry{Name: "etc/null", Type: '3', Dev: [2]int64{1, 3}}))
	img := h.WaitActive("images/d.tar")
	if img.Tree.Changed != 3 || img.Tree.Policy != "distro" {
		t.Errorf("%d entries adjusted under %q, want 3", img.Tree.Changed, img.Tree.Policy)
	}
	changes, err := h.Store.Adjustments(t.Context(), img.Tree.Device)
	h.Check(err)
	want := store.Adjustment{Rule: "symlink_absolute", Entry: "etc/mtab", From: "/etc/x", To: "x"}
	if len(changes) != 3 || !slices.Contains(changes, want) {
		t.Errorf("changes %+v, want %+v among them", changes, want)
	}
	snapshots, err := h.Store.SnapshotsOf(t.Context(), img.ID)
	h.Check(err)
	if got := h.readlink(snapshots[0].Path, "rootfs/etc/mtab"); got != "x" {
		t.Errorf("the absolute link became %q", got)
	}
	h.Stop()
	h.Look()
}

// Messages without an image of this bucket and prefix are deleted, or quarantined if they
// are about another bucket or prefix.
func TestForeignMessages(t *testing.T) {
	h := newHost(t)
	h.Start()
	h.makeFirst() // otherwise the daemon would suspect its own configuration
	for _, text := range []string{
		fmt.Sprintf(`{"Service":"Amazon S3","Event":"s3:TestEvent","Time":"2026-11-01T10:00:00.000Z",`+
			`"Bucket":%q,"RequestId":"R1","HostId":"H1"}`, h.Cloud.Name),
		message(record("ObjectCreated:Put", "another", "images/x.tar", "e")),
		message(record("ObjectCreated:Put", h.Cloud.Name, "other/x.tar", "e")),
		message(record("ObjectRemoved:Delete", h.Cloud.Name, "images/x.tar", "e")),
		message(),
	} {
		h.send(text)
	}
	h.WaitDrained()
	h.checkQuarantined(2)
	images, err := h.Store.Images(t.Context())
	h.Check(err)
	if len(images) != 1 {
		t.Errorf("images made of nothing: %+v", images)
	}
	h.Stop()
}

// checkQuarantined checks how many messages are in quarantine.
func (h *host) checkQuarantined(want int) {
	h.T.Helper()
	list, err := h.Store.QuarantinedMessages(h.T.Context())
	h.Check(err)
	if len(list) != want {
		h.T.Errorf("%d messages in quarantine, want %d: %+v", len(list), want, list)
	}
}

// Several records in one message: it is deleted when all are terminal, one of them
// refused.
func TestSeveralRecords(t *testing.T) {
	h := newHost(t)
	var records []string
	for i, body := range [][]byte{tarballs.RootFS("a", 3), tarballs.RootFS("b", 3), []byte("garbage")} {
		key := fmt.Sprintf("images/%d.tar", i)
		h.put(key, body)
		records = append(records, record("ObjectCreated:Put", h.Cloud.Name, key, md5Hex(body)))
	}
	h.Check(h.Cloud.Purge(t.Context()))
	h.send(message(records...))
	h.Start()
	h.WaitDrained()
	for key, want := range map[string]store.State{
		"images/0.tar": store.StateActive, "images/1.tar": store.StateActive,
		"images/2.tar": store.StateRejected,
	} {
		if img := h.WaitEnded(key); img.State != want {
			t.Errorf("%s ended %s (%s), want %s", key, img.State, img.Reason, want)
		}
	}
	h.Stop()
	h.Look()
}

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"imagemanager.internal/internal/store"
)

// Acceptance tests 5 and 7: what is refused is refused with its reason, its message is deleted, and nothing is left.
func TestRefusals(t *testing.T) {
	h := newHost(t)
	h.start()
	good := rootfs("hello", 5)
	for _, c := range []struct {
		name, key string
		body      []byte
		state     store.State
		says      string
	}{
		{"traversal", "images/dotdot.tar", rootfs("x", 1, entry{name: "../../etc/passwd", body: "x"}), store.Violation, ".."},
		{"absolute name", "images/abs.tar", rootfs("x", 1, entry{name: "/etc/passwd", body: "x"}), store.Violation, "absolute"},
		{"absolute link", "images/abslink.tar", rootfs("x", 1, entry{name: "etc/mtab", link: "/proc/mounts"}), "", "IMAGE_POLICY=distro"},
		{"escaping link", "images/esc.tar", rootfs("x", 1, entry{name: "etc/l", link: "../../../x"}), store.Violation, "etc/l"},
		{"setuid", "images/suid.tar", rootfs("x", 1, entry{name: "usr/su", mode: 0o4755, body: "x"}), "", "IMAGE_POLICY=distro"},
		{"device node", "images/dev.tar", rootfs("x", 1, entry{name: "etc/null", device: true}), "", "etc/null"},
		{"truncated", "images/short.tar", good[:len(good)/2], store.Rejected, ""},
		{"no image", "images/text.tar", []byte(strings.Repeat("this is no tar\n", 100)), store.Rejected, ""},
		{"compressed", "images/gz.tar", gzipped(good), store.Rejected, "gzip"},
		{"not canonical", "images/flat.tar", tarball(entry{name: "readme", body: "x"}), store.Rejected, "etc"},
		{"bad key", "images/../x.tar", good, store.Rejected, ""},
	} {
		h.put(c.key, c.body)
		img := h.ends(c.key)
		if img.State != store.Rejected && img.State != store.Violation || c.state != "" && img.State != c.state || !strings.Contains(img.Reason, c.says) {
			t.Errorf("%s: ended %s: %q; want %s naming %q", c.name, img.State, img.Reason, c.state, c.says)
		}
		t.Logf("%s: %s: %s", c.name, img.State, img.Reason)
	}
	h.drained()
	devices, err := h.store.Devices(t.Context())
	h.check(err)
	if len(devices) != 0 {
		t.Errorf("devices left: %+v", devices)
	}
	h.stop()
	h.whole()
}

// What `distro` is for: links rewritten, special bits stripped, devices skipped.
func TestDistro(t *testing.T) {
	h := newHost(t, "IMAGE_POLICY=distro")
	h.start()
	h.put("images/d.tar", rootfs("x", 1, entry{name: "etc/mtab", link: "/etc/x"}, entry{name: "usr/su", mode: 0o4755, body: "x"}, entry{name: "etc/null", device: true}))
	img := h.active("images/d.tar")
	if img.Tree.Changed != 3 || img.Tree.Policy != "distro" {
		t.Errorf("%d entries adjusted under %q, want 3", img.Tree.Changed, img.Tree.Policy)
	}
	snapshots, err := h.store.SnapshotsOf(t.Context(), img.ID)
	h.check(err)
	if got := h.readlink(snapshots[0].Path, "rootfs/etc/mtab"); got != "x" {
		t.Errorf("the absolute link became %q", got)
	}
	h.stop()
	h.whole()
}

// Messages that name no image of ours end without one: deleted, or, where they are about another bucket or prefix, kept aside.
func TestForeignMessages(t *testing.T) {
	h := newHost(t)
	h.start()
	for _, text := range []string{
		`{"Service":"Amazon S3","Event":"s3:TestEvent","Time":"2026-11-01T10:00:00.000Z","Bucket":"images-bucket","RequestId":"R1","HostId":"H1"}`,
		`{"Records":[{"eventVersion":"2.1","eventSource":"aws:s3","eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"another"},"object":{"key":"images/x.tar","eTag":"e"}}}]}`,
		`{"Records":[{"eventVersion":"2.1","eventSource":"aws:s3","eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"images-bucket"},"object":{"key":"other/x.tar","eTag":"e"}}}]}`,
		`{"Records":[{"eventVersion":"2.1","eventSource":"aws:s3","eventName":"ObjectRemoved:Delete","s3":{"bucket":{"name":"images-bucket"},"object":{"key":"images/x.tar","eTag":"e"}}}]}`,
		`{"Records":[]}`,
	} {
		h.send(strings.ReplaceAll(text, "images-bucket", h.cloud.Name))
	}
	h.drained()
	h.kept(2)
	images, err := h.store.Images(t.Context())
	h.check(err)
	if len(images) != 0 {
		t.Errorf("images made of nothing: %+v", images)
	}
	h.stop()
}

// kept checks how many messages are in quarantine: foreign ones are, unless they are to be dropped.
func (h *host) kept(want int) {
	h.t.Helper()
	list, err := h.store.QuarantinedAll(h.t.Context())
	h.check(err)
	if len(list) != want {
		h.t.Errorf("%d messages in quarantine, want %d: %+v", len(list), want, list)
	}
}

// Several records in one message: it is deleted when all are terminal, one of them refused.
func TestSeveralRecords(t *testing.T) {
	h := newHost(t)
	var records []string
	for i, body := range [][]byte{rootfs("a", 3), rootfs("b", 3), []byte("garbage")} {
		key := fmt.Sprintf("images/%d.tar", i)
		h.put(key, body)
		records = append(records, fmt.Sprintf(`{"eventVersion":"2.1","eventSource":"aws:s3","eventName":"ObjectCreated:Put","s3":{"bucket":{"name":%q},"object":{"key":%q,"eTag":%q}}}`,
			h.cloud.Name, key, md5Hex(body)))
	}
	h.check(h.cloud.Purge(t.Context()))
	h.send(`{"Records":[` + strings.Join(records, ",") + `]}`)
	h.start()
	h.drained()
	for key, want := range map[string]store.State{"images/0.tar": store.Active, "images/1.tar": store.Active, "images/2.tar": store.Rejected} {
		if img := h.ends(key); img.State != want {
			t.Errorf("%s ended %s (%s), want %s", key, img.State, img.Reason, want)
		}
	}
	h.stop()
	h.whole()
}

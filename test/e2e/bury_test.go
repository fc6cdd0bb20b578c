package e2e

import (
	"fmt"
	"strings"
	"testing"

	"imagemanager.internal/internal/store"
	"imagemanager.internal/test/emulator"
	tarballs "imagemanager.internal/test/images"
)

// quarantined is how many messages are in quarantine.
func (h *host) quarantined() int {
	h.T.Helper()
	list, err := h.Store.QuarantinedAll(h.T.Context())
	h.Check(err)
	return len(list)
}

// waitQuarantined waits until the queue is empty and one message in quarantine.
func (h *host) waitQuarantined() {
	h.T.Helper()
	h.WaitDrained()
	if n := h.quarantined(); n != 1 {
		h.T.Errorf("%d messages in quarantine, want one", n)
	}
}

// notified is a message about keys of the bucket that hold the usual image.
func (h *host) notified(keys ...string) string {
	tag := md5Hex(tarballs.RootFS("hello", 3))
	var records []string
	for _, key := range keys {
		records = append(records, fmt.Sprintf(`{"eventVersion":"2.1","eventSource":"aws:s3","eventName":"ObjectCreated:Put","s3":{"bucket":{"name":%q},"object":{"key":%q,"eTag":%q}}}`,
			h.Cloud.Name, key, tag))
	}
	return `{"Records":[` + strings.Join(records, ",") + `]}`
}

// Two objects of one message fail, and one of them has failed before: it ends earlier.
// Neither brings the other back, and the message is buried.
func TestFailingSiblings(t *testing.T) {
	h := newHost(t, "MAX_ATTEMPTS=4")
	h.Check(h.Cloud.Silence(t.Context()))
	h.faulty().Fault(emulator.Fault{Op: "GetObject", Status: 500})
	h.put("images/a.tar", tarballs.RootFS("hello", 3))
	h.put("images/b.tar", tarballs.RootFS("hello", 3))
	h.Start()
	h.send(h.notified("images/a.tar"))
	h.WaitFor("a has failed twice", func() bool { return len(h.failures("images/a.tar")) == 2 })
	h.send(h.notified("images/a.tar", "images/b.tar"))
	h.WaitFor("both are buried", func() bool { return h.quarantined() == 2 })
	h.WaitDrained()
	for _, key := range []string{"images/a.tar", "images/b.tar"} {
		if img := h.WaitEnded(key); img.State != store.Dead || len(h.failures(key)) > 8 {
			t.Errorf("%s is %s after %d failures", key, img.State, len(h.failures(key)))
		}
	}
	h.faulty().Clear()
	h.send(h.notified("images/a.tar", "images/b.tar")) // a new message is a new chance
	h.WaitFor("both are active", func() bool { return h.count(store.Active) == 2 })
	h.Stop()
	h.Look()
}

// A record that cannot be read does not stop the others of its message.
func TestOneBadRecord(t *testing.T) {
	h := newHost(t)
	h.Check(h.Cloud.Silence(t.Context()))
	h.put("images/a.tar", tarballs.RootFS("hello", 3))
	h.put("images/b.tar", tarballs.RootFS("hello", 3))
	h.Start()
	h.send(strings.Replace(h.notified("images/a.tar", "images/none.tar", "images/b.tar"), "none", "%zz", 1))
	h.WaitActive("images/a.tar")
	h.WaitActive("images/b.tar")
	h.waitQuarantined()
	h.Stop()
	h.Look()
}

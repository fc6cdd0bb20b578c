package e2e

import (
	"fmt"
	"strings"
	"testing"

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

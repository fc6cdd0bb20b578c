package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"imagemanager.internal/internal/store"
	"imagemanager.internal/test/emulator"
	tarballs "imagemanager.internal/test/images"
)

// countQuarantined returns how many messages are in quarantine.
func (h *host) countQuarantined() int {
	h.T.Helper()
	list, err := h.Store.QuarantinedMessages(h.T.Context())
	h.Check(err)
	return len(list)
}

// waitQuarantined waits until the queue is empty and one message in quarantine.
func (h *host) waitQuarantined() {
	h.T.Helper()
	h.WaitDrained()
	if n := h.countQuarantined(); n != 1 {
		h.T.Errorf("%d messages in quarantine, want one", n)
	}
}

// countMessages returns how many visible messages a queue has.
func (h *host) countMessages(queue string) string {
	h.T.Helper()
	const visible = "ApproximateNumberOfMessages"
	a, err := h.Cloud.SQS.GetQueueAttributes(h.T.Context(), &sqs.GetQueueAttributesInput{
		QueueUrl: aws.String(queue), AttributeNames: []sqstypes.QueueAttributeName{visible},
	})
	h.Check(err)
	return a.Attributes[visible]
}

// notification returns a message about keys of the bucket that hold the usual image.
func (h *host) notification(keys ...string) string {
	tag := md5Hex(tarballs.RootFS("hello", 3))
	var records []string
	for _, key := range keys {
		records = append(records, record("ObjectCreated:Put", h.Cloud.Name, key, tag))
	}
	return message(records...)
}

// A dead-letter queue that does not exist is a mistake in the configuration, and no
// message is touched. A queue whose attributes may not be read does not prevent the
// start.
func TestDeadLetterQueueMissing(t *testing.T) {
	h := newHost(t)
	h.send("{this is no notification")
	out, code := h.TryWith([]string{"SQS_DEAD_LETTER_URL=" + h.Cloud.Queue + "-none"}, "run")
	if code != 2 || !strings.Contains(out, "SQS_DEAD_LETTER_URL") || !strings.Contains(out, h.Cloud.Queue+"-none") {
		t.Errorf("exit code %d, %s", code, out)
	}
	if n := h.emulator().Calls("ReceiveMessage"); n != 0 {
		t.Errorf("%d polls", n)
	}
	dlq := h.deadLetterQueue()
	h.emulator().Fault(emulator.Fault{
		Op: "GetQueueAttributes", Target: path.Base(dlq), Status: http.StatusForbidden,
		Code: "AccessDenied",
	})
	h.Start("SQS_DEAD_LETTER_URL="+dlq, "SQS_DEPTH_INTERVAL=0")
	h.WaitDrained()
	if log := string(h.NewestLog()); !strings.Contains(log, "sqs:GetQueueAttributes") || h.countQuarantined() != 0 {
		t.Errorf("%d in quarantine, the log has no warning: %t",
			h.countQuarantined(), !strings.Contains(log, "sqs:GetQueueAttributes"))
	}
	h.emulator().Clear()
	if n := h.countMessages(dlq); n != "1" {
		t.Errorf("%s copies", n)
	}
	h.Stop()
}

// Messages that the dead-letter queue does not take, for whatever reason, are kept in
// quarantine, and the log says so. The next message is sent to the queue again.
func TestQuarantinedInstead(t *testing.T) {
	h := newHost(t)
	dlq := h.deadLetterQueue()
	send := emulator.Fault{Op: "SendMessage", Target: path.Base(dlq)}
	h.Start("SQS_DEAD_LETTER_URL=" + dlq)
	h.WaitRunning()

	send.Times, send.Status = 1, http.StatusInternalServerError
	h.emulator().Fault(send)
	h.send("no notification 1")
	h.WaitFor("it is copied at the second try", func() bool { return h.countMessages(dlq) == "1" })
	h.WaitDrained()
	if n := h.countQuarantined(); n != 0 {
		t.Errorf("%d in quarantine after one failure", n)
	}

	_, err := h.Cloud.SQS.SetQueueAttributes(t.Context(), &sqs.SetQueueAttributesInput{
		QueueUrl: aws.String(dlq), Attributes: map[string]string{"MaximumMessageSize": "1024"},
	})
	h.Check(err)
	for i, f := range []emulator.Fault{
		{Status: http.StatusInternalServerError},
		{Status: http.StatusForbidden, Code: "AccessDenied"},
		{Status: http.StatusBadRequest, Code: "AWS.SimpleQueueService.NonExistentQueue"},
		{Op: "no fault: the copy is too large"},
	} {
		if f.Op == "" {
			f.Op, f.Target = send.Op, send.Target
		}
		h.emulator().Clear()
		h.emulator().Fault(f)
		h.send(strings.Repeat("no notification", 100))
		h.WaitFor(fmt.Sprintf("message %d is in quarantine", i), func() bool { return h.countQuarantined() == i+1 })
		h.WaitDrained()
	}
	if n := strings.Count(string(h.NewestLog()), "kept in quarantine instead"); n != 4 {
		t.Errorf("the log says it %d times", n)
	}
	h.Stop()
	h.Look()
}

// Two objects of one message fail, and one of them has failed before: it ends earlier.
// Neither brings the other back, and the message is dead-lettered.
func TestFailingSiblings(t *testing.T) {
	h := newHost(t, "MAX_ATTEMPTS=4")
	h.Check(h.Cloud.Silence(t.Context()))
	h.emulator().Fault(emulator.Fault{Op: "GetObject", Status: http.StatusForbidden, Code: "AccessDenied"})
	h.put("images/a.tar", tarballs.RootFS("hello", 3))
	h.put("images/b.tar", tarballs.RootFS("hello", 3))
	h.Start()
	h.send(h.notification("images/a.tar"))
	h.WaitFor("a has failed twice", func() bool { return len(h.failures("images/a.tar")) == 2 })
	h.send(h.notification("images/a.tar", "images/b.tar"))
	h.WaitFor("both are buried", func() bool { return h.countQuarantined() == 2 })
	h.WaitDrained()
	for _, key := range []string{"images/a.tar", "images/b.tar"} {
		if img := h.WaitEnded(key); img.State != store.StateDead || len(h.failures(key)) > 8 {
			t.Errorf("%s is %s after %d failures", key, img.State, len(h.failures(key)))
		}
	}
	h.emulator().Clear()
	h.send(h.notification("images/a.tar", "images/b.tar")) // a new message is a new chance
	h.WaitFor("both are active", func() bool { return h.countImages(store.StateActive) == 2 })
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
	h.send(strings.Replace(h.notification("images/a.tar", "images/none.tar", "images/b.tar"), "none", "%zz", 1))
	h.WaitActive("images/a.tar")
	h.WaitActive("images/b.tar")
	h.waitQuarantined()
	h.Stop()
	h.Look()
}

// The right to prolong leases is missing: /readyz names the call and what to do, the log
// the denial, once for a while, and nothing new is taken until it is there again.
func TestHeartbeatDenied(t *testing.T) {
	h := newHost(t, "MAX_ATTEMPTS=3")
	h.Start()
	h.WaitRunning()
	h.emulator().Fault(emulator.Fault{
		Op: "ChangeMessageVisibilityBatch", Status: http.StatusForbidden,
		Code: "AccessDenied",
	})
	h.emulator().Fault(emulator.Fault{Op: "GetObject", Rate: 20_000})
	h.put("images/a.tar", tarballs.RootFS("hello", 150)) // some 400 kB: 20 s
	h.WaitFor("/readyz names the call", func() bool {
		code, text := h.Get("/readyz")
		return code == http.StatusServiceUnavailable &&
			strings.Contains(text, "ChangeMessageVisibility fails: denied: allow sqs:ChangeMessageVisibility")
	})
	h.waitEvent("images/a.tar", "undone download") // its lease ends
	text := string(h.NewestLog())
	if n := strings.Count(text, `"call":"ChangeMessageVisibility","class":"denied"`); n < 1 || n > 3 {
		t.Errorf("the log names the denied call %d times", n)
	}
	h.WaitFor("the message is there for others", func() bool { return h.countMessages(h.Cloud.Queue) == "1" })
	h.emulator().Clear()
	h.waitResumed()
	h.WaitActive("images/a.tar")
	h.WaitDrained()
	h.checkNoFailures("images/a.tar")
	h.Stop()
	h.Look()
}

// The right to delete messages is missing: finished images stay finished, and /readyz
// says what is missing.
func TestDeleteDenied(t *testing.T) {
	h := newHost(t)
	h.Start()
	h.WaitRunning()
	h.WaitDrained() // of the message by which S3 tries the notification
	h.emulator().Fault(emulator.Fault{Op: "DeleteMessageBatch", Status: http.StatusForbidden, Code: "AccessDenied"})
	img := h.makeFirst()
	h.WaitFor("/readyz names the call", func() bool {
		code, text := h.Get("/readyz")
		return code == http.StatusServiceUnavailable &&
			strings.Contains(text, "DeleteMessage fails: denied: allow sqs:DeleteMessage")
	})
	h.WaitFor("the message is visible again, and nobody takes it",
		func() bool { return h.countMessages(h.Cloud.Queue) != "0" })
	h.emulator().Clear()
	h.waitResumed()
	h.WaitDrained()
	h.checkReadable(img)
	h.Stop()
	h.Look()
}

// The log of an idle daemon's database is empty, and there are metrics of all that grows
// without a limit.
func TestGrowthIsMeasured(t *testing.T) {
	h := newHost(t, "RECONCILE_INTERVAL=0")
	h.Start()
	h.send("no notification")
	h.makeFirst()
	h.waitQuarantined()
	h.WaitFor("the log is empty", func() bool {
		info, err := os.Stat(h.Database() + "-wal")
		h.Check(err)
		return info.Size() == 0
	})
	h.Stop()
	h.Start()
	h.WaitRunning()
	for _, want := range []string{
		`imagemanager_database_rows{table="images"} 1`, `imagemanager_database_rows{table="quarantine"} 1`,
		`imagemanager_database_rows{table="events"} `,
		`imagemanager_kept_files{what="archives"} 1`, `imagemanager_kept_files{what="manifests"} 1`,
		`imagemanager_kept_files{what="violations"} 0`,
		`imagemanager_kept_bytes{what="database_log"} 0`,
	} {
		h.WaitFor(want, func() bool {
			_, text := h.Get("/metrics")
			return strings.Contains(text, want)
		})
	}
	h.Stop()
}

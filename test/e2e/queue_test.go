package e2e

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"imagemanager.internal/internal/store"
	"imagemanager.internal/test/emulator"
)

// The fault matrix: whatever goes wrong, and wherever, every object ends terminal exactly once and nothing remains in the queue.
func TestFaultMatrix(t *testing.T) {
	h := newHost(t, "DOWNLOAD_TIMEOUT=3s", "SQS_VISIBILITY=10s", "MAX_ATTEMPTS=20")
	h.start()
	const slow = 20_000_000 // bytes a second
	for _, c := range []struct {
		name     string
		faults   []emulator.Fault
		delivery emulator.Delivery
	}{
		{name: "no fault"},
		{name: "receive: 500", faults: []emulator.Fault{{Op: "ReceiveMessage", Times: 3, Status: 500}}},
		{name: "receive: throttled", faults: []emulator.Fault{{Op: "ReceiveMessage", Times: 3, Status: 400, Code: "ThrottlingException"}}},
		{name: "receive: reset", faults: []emulator.Fault{{Op: "ReceiveMessage", Times: 3, Reset: true}}},
		{name: "receive: answer lost", faults: []emulator.Fault{{Op: "ReceiveMessage", Times: 1, Lost: true}}},
		{name: "receive: redelivered", faults: []emulator.Fault{{Op: "ReceiveMessage", Times: 2, Redeliver: true}}},
		{name: "download: 500", faults: []emulator.Fault{{Op: "GetObject", Times: 4, Status: 500}}},
		{name: "download: slow down", faults: []emulator.Fault{{Op: "GetObject", Times: 4, Status: 503, Code: "SlowDown"}}},
		{name: "download: denied for a while", faults: []emulator.Fault{{Op: "GetObject", Times: 2, Status: 403, Code: "AccessDenied"}}},
		{name: "download: reset at once", faults: []emulator.Fault{{Op: "GetObject", Times: 4, Reset: true}}},
		{name: "download: reset midway", faults: []emulator.Fault{{Op: "GetObject", Times: 4, Reset: true, After: 50_000}}},
		{name: "download: ends early", faults: []emulator.Fault{{Op: "GetObject", Times: 4, Break: true, After: 50_000}}},
		{name: "download: corrupt", faults: []emulator.Fault{{Op: "GetObject", Times: 2, Corrupt: true, After: 50_000}}},
		{name: "download: hangs", faults: []emulator.Fault{{Op: "GetObject", Times: 1, Hang: true, After: 50_000}}},
		{name: "download: slow", faults: []emulator.Fault{{Op: "GetObject", Rate: slow}}},
		{name: "heartbeat: 500", faults: []emulator.Fault{{Op: "ChangeMessageVisibilityBatch", Times: 3, Status: 500}, {Op: "GetObject", Rate: slow}}},
		{name: "settle: 500", faults: []emulator.Fault{{Op: "DeleteMessageBatch", Times: 3, Status: 500}}},
		{name: "settle: entry fails", faults: []emulator.Fault{{Op: "DeleteMessageBatch", Times: 3, Status: 500, Entries: -1}}},
		{name: "settle: answer lost", faults: []emulator.Fault{{Op: "DeleteMessageBatch", Times: 1, Lost: true}}},
		{name: "settle: reset", faults: []emulator.Fault{{Op: "DeleteMessageBatch", Times: 2, Reset: true}}},
		{name: "delivered three times", delivery: emulator.Delivery{Copies: 3}},
		{name: "through SNS", delivery: emulator.Delivery{Envelope: emulator.SNS}},
		{name: "through EventBridge", delivery: emulator.Delivery{Envelope: emulator.EventBridge}},
		{name: "through EventBridge and SNS", delivery: emulator.Delivery{Envelope: emulator.EventBridgeInSNS}},
	} {
		h.faulty().Clear()
		h.faulty().Deliver(c.delivery)
		for _, f := range c.faults {
			h.faulty().Fault(f)
		}
		key := "images/" + c.name + ".tar"
		h.put(key, rootfs("hello", 40))
		img := h.active(key)
		h.drained()
		events, err := h.store.History(t.Context(), img.ID)
		h.check(err)
		ended := 0
		for _, e := range events {
			if e.Kind == store.Done && e.Stage == store.Activate {
				ended++
			}
		}
		if ended != 1 {
			t.Errorf("%s: activated %d times", c.name, ended)
		}
	}
	h.stop()
	h.whole()
}

// deadLetterQueue makes one more queue and returns its URL.
func (h *host) deadLetterQueue() string {
	h.t.Helper()
	q, err := h.cloud.SQS.CreateQueue(h.t.Context(), &sqs.CreateQueueInput{QueueName: aws.String(h.cloud.Name + "-dead")})
	h.check(err)
	return *q.QueueUrl
}

func (h *host) send(body string) {
	h.t.Helper()
	h.check(h.cloud.Send(h.t.Context(), body))
}

// An image that fails again and again is given up; its message goes to quarantine, and from there back when the fault is gone.
func TestQuarantine(t *testing.T) {
	h := newHost(t, "MAX_ATTEMPTS=3")
	h.start()
	h.faulty().Fault(emulator.Fault{Op: "GetObject", Status: 500})
	h.put("images/a.tar", rootfs("hello", 3))
	h.send("{this is no notification")
	if img := h.ends("images/a.tar"); img.State != store.Dead || img.Failures != 3 {
		t.Errorf("ended %s after %d failures, want dead after 3", img.State, img.Failures)
	}
	h.drained()
	list, err := h.store.QuarantinedAll(t.Context())
	h.check(err)
	if len(list) != 2 {
		t.Fatalf("in quarantine: %+v, want the broken message and the failed image's", list)
	}
	h.faulty().Clear()
	for _, q := range list {
		if strings.Contains(q.Body, "images/a.tar") {
			if q.Attempts != 3 || q.Reason == "" {
				t.Errorf("quarantined without its story: %+v", q)
			}
			h.consumer("quarantine", "requeue", fmt.Sprint(q.ID))
		} else {
			h.consumer("quarantine", "drop", fmt.Sprint(q.ID))
		}
	}
	h.eventually("the image that was dead is active", func() bool { return h.count(store.Active) == 1 })
	h.drained()
	h.stop()
	h.whole()
}

// With a dead-letter queue configured the message goes there, with the reason and the number of attempts.
func TestDeadLetter(t *testing.T) {
	h := newHost(t)
	dlq := h.deadLetterQueue()
	h.env = append(h.env, "MAX_ATTEMPTS=2", "SQS_DEAD_LETTER_URL="+dlq)
	h.start()
	h.faulty().Fault(emulator.Fault{Op: "GetObject", Status: 500})
	h.put("images/a.tar", rootfs("hello", 3))
	h.ends("images/a.tar")
	h.drained()
	m, err := h.cloud.SQS.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{
		QueueUrl: aws.String(dlq), WaitTimeSeconds: 1, MessageAttributeNames: []string{"All"},
	})
	h.check(err)
	if len(m.Messages) != 1 || !strings.Contains(*m.Messages[0].Body, "images/a.tar") {
		t.Fatalf("in the dead-letter queue: %+v", m.Messages)
	}
	a := m.Messages[0].MessageAttributes
	if *a["Attempts"].StringValue != "2" || *a["Reason"].StringValue == "" {
		t.Errorf("attributes %+v", a)
	}
	h.stop()
	h.whole()
}

// The lease is lost in the middle of a download: the attempt is rolled back and does not commit; the redelivered message starts anew.
func TestLeaseLost(t *testing.T) {
	h := newHost(t)
	h.start()
	h.faulty().Fault(emulator.Fault{Op: "GetObject", Times: 1, Rate: 20_000})
	h.put("images/a.tar", rootfs("hello", 60))
	h.reaches("images/a.tar", "begun download")
	h.faulty().Fault(emulator.Fault{Op: "ChangeMessageVisibilityBatch", Times: 1, Entries: -1, Status: 400, Code: "ReceiptHandleIsInvalid"})
	h.reaches("images/a.tar", "undone download")
	h.faulty().Expire(h.cloud.Name)
	img := h.active("images/a.tar")
	h.drained()
	if img.Failures != 0 {
		t.Errorf("a lost lease counts as %d failures", img.Failures)
	}
	h.stop()
	h.whole()
}

// An object overwritten before it was fetched is superseded by the newer one; one deleted before it was fetched has vanished.
func TestOverwrittenAndDeleted(t *testing.T) {
	h := newHost(t)
	h.put("images/a.tar", rootfs("old", 3))
	h.check(h.cloud.Silence(t.Context())) // the newer event never comes
	h.put("images/a.tar", rootfs("new", 3))
	h.check(h.cloud.Notify(t.Context()))
	h.put("images/gone.tar", rootfs("gone", 3))
	_, err := h.cloud.S3.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: aws.String(h.cloud.Name), Key: aws.String("images/gone.tar")})
	h.check(err)
	h.start()
	if img := h.ends("images/gone.tar"); img.State != store.Vanished || img.Failures != 2 {
		t.Errorf("a deleted object ended %s after asking %d times, want vanished after 2", img.State, img.Failures)
	}
	img := h.active("images/a.tar")
	h.drained()
	images, err := h.store.ByKey(t.Context(), "images/a.tar")
	h.check(err)
	if len(images) != 2 || images[0].State != store.Superseded || images[1].State != store.Active {
		t.Errorf("images of the overwritten key: %+v", images)
	}
	snapshots, err := h.store.SnapshotsOf(t.Context(), img.ID)
	h.check(err)
	if got := h.hello(snapshots[0].Path); got != "new" {
		t.Errorf("the snapshot holds %q", got)
	}
	h.stop()
	h.whole()
}

// Objects whose events were lost are found by a backfill, or submitted by hand; beside live events nothing is done twice.
func TestBackfillAndSubmit(t *testing.T) {
	h := newHost(t)
	h.check(h.cloud.Silence(t.Context()))
	for i := range 5 {
		h.put(fmt.Sprintf("images/%d.tar", i), rootfs("hello", 3))
	}
	h.put("other/x.tar", rootfs("hello", 3))
	h.put("images/folder/", nil)
	h.check(h.cloud.Notify(t.Context()))
	h.start()
	h.running()
	h.consumer("submit", "images/3.tar")
	h.active("images/3.tar")
	if out := h.consumer("backfill", "--dry-run"); !strings.Contains(out, "4 missing") || strings.Contains(out, "images/3.tar") {
		t.Errorf("backfill --dry-run: %s", out)
	}
	h.put("images/4.tar", rootfs("hello", 3)) // its event comes late, with the backfill
	if out := h.consumer("backfill"); !strings.Contains(out, "listed") {
		t.Errorf("backfill: %s", out)
	}
	for i := range 5 {
		h.active(fmt.Sprintf("images/%d.tar", i))
	}
	if out := h.consumer("backfill"); !strings.Contains(out, "0 enqueued") {
		t.Errorf("a second backfill: %s", out)
	}
	if out, code := h.try("submit", "images/none.tar"); code == 0 {
		t.Errorf("submit of a missing key: exit code %d, %s", code, out)
	}
	h.drained()
	h.stop()
	images, err := h.store.Images(t.Context())
	h.check(err)
	if len(images) != 5 {
		t.Errorf("%d images, want 5", len(images))
	}
	h.whole()
}

// The daemon itself compares the bucket with the journal when it starts, if it is told to.
func TestBackfillAtStart(t *testing.T) {
	h := newHost(t, "BACKFILL_AT_START=true")
	h.check(h.cloud.Silence(t.Context()))
	h.put("images/a.tar", rootfs("hello", 3))
	h.start()
	h.active("images/a.tar")
	h.stop()
	h.whole()
}

// A stop gives back at once what was not started.
func TestStopReturnsTheRest(t *testing.T) {
	h := newHost(t, "SHUTDOWN_GRACE=0s", "SQS_VISIBILITY=600s")
	h.faulty().Fault(emulator.Fault{Op: "GetObject", Rate: 20_000})
	for i := range 12 {
		h.put(fmt.Sprintf("images/%02d.tar", i), rootfs("hello", 60))
	}
	h.start()
	h.eventually("downloads run", func() bool { return h.overlaps()[store.Download] == 5 })
	h.stop()
	a, err := h.cloud.SQS.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{
		QueueUrl: aws.String(h.cloud.Queue), AttributeNames: []sqstypes.QueueAttributeName{"ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"},
	})
	h.check(err)
	if a.Attributes["ApproximateNumberOfMessagesNotVisible"] != "0" || a.Attributes["ApproximateNumberOfMessages"] != "13" { // and the test event
		t.Logf("attributes after the stop: %v", a.Attributes)
		if a.Attributes["ApproximateNumberOfMessagesNotVisible"] != "0" {
			t.Errorf("%s messages are invisible after the stop", a.Attributes["ApproximateNumberOfMessagesNotVisible"])
		}
	}
	h.faulty().Clear()
	h.start()
	for i := range 12 {
		h.active(fmt.Sprintf("images/%02d.tar", i))
	}
	h.drained()
	h.stop()
	h.whole()
}

// A stream of duplicates is answered from the journal in flat memory. CIM_DUPLICATES sets how many.
func TestDuplicatesInFlatMemory(t *testing.T) {
	n := 900
	if v, err := strconv.Atoi(os.Getenv("CIM_DUPLICATES")); err == nil {
		n = v
	}
	h := newHost(t, "LOG_LEVEL=info", "SQS_VISIBILITY=60s")
	body := rootfs("hello", 3)
	h.start()
	h.put("images/a.tar", body)
	img := h.active("images/a.tar")
	h.drained()
	record := fmt.Sprintf(`{"Records":[{"eventVersion":"2.1","eventSource":"aws:s3","eventName":"ObjectCreated:Put","s3":{"bucket":{"name":%q},"object":{"key":"images/a.tar","eTag":%q}}}]}`, h.cloud.Name, md5Hex(body))
	burst := func(n int) {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for sent := 0; sent < n/4; sent += 10 {
					var batch []sqstypes.SendMessageBatchRequestEntry
					for i := range 10 {
						batch = append(batch, sqstypes.SendMessageBatchRequestEntry{Id: aws.String(fmt.Sprint(i)), MessageBody: aws.String(record)})
					}
					if _, err := h.cloud.SQS.SendMessageBatch(t.Context(), &sqs.SendMessageBatchInput{QueueUrl: aws.String(h.cloud.Queue), Entries: batch}); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		h.eventuallyWithin(n, "the queue is empty", h.isDrained)
	}
	burst(n / 3)
	before, events := h.rss(), h.events(img.ID)
	burst(n)
	after := h.rss()
	t.Logf("%d duplicates: resident memory %d KiB, then %d KiB", n, before, after)
	if after > before+before/2 {
		t.Errorf("memory grew from %d to %d KiB over %d messages", before, after, n)
	}
	if now := h.events(img.ID); now != events {
		t.Errorf("duplicates changed the journal: %d events, then %d", events, now)
	}
	h.stop()
}

// rss is the daemon's resident memory in KiB.
func (h *host) rss() int {
	h.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.daemon.Process.Pid))
	h.check(err)
	for line := range strings.Lines(string(text)) {
		if rest, found := strings.CutPrefix(line, "VmRSS:"); found {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			h.check(err)
			return n
		}
	}
	h.t.Fatal("no VmRSS")
	return 0
}

// With the queue missing the daemon says so, once for a while, and is ready again when the queue is there.
func TestQueueMissing(t *testing.T) {
	h := newHost(t)
	h.faulty().Fault(emulator.Fault{Op: "ReceiveMessage", Status: http.StatusBadRequest, Code: "AWS.SimpleQueueService.NonExistentQueue"})
	h.start()
	h.eventually("several polls failed", func() bool { return h.faulty().Calls("ReceiveMessage") >= 4 })
	text, err := os.ReadFile(h.log.Name())
	h.check(err)
	if n := strings.Count(string(text), "cannot receive messages"); n != 1 {
		t.Errorf("said %d times that messages cannot be received, want once in ten seconds", n)
	}
	h.faulty().Clear()
	h.put("images/a.tar", rootfs("hello", 3))
	h.active("images/a.tar")
	h.drained()
	h.stop()
	h.whole()
}

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"imagemanager.internal/internal/store"
	"imagemanager.internal/test/emulator"
	tarballs "imagemanager.internal/test/images"
)

// The fault matrix: whatever goes wrong, and wherever, every object ends terminal exactly
// once and nothing remains in the queue.
func TestFaultMatrix(t *testing.T) {
	h := newHost(t, "DOWNLOAD_TIMEOUT=3s", "SQS_VISIBILITY=10s", "MAX_ATTEMPTS=20")
	h.Start()
	const slow = 20_000_000 // bytes a second
	for _, c := range []struct {
		name     string
		faults   []emulator.Fault
		delivery emulator.Delivery
	}{
		{name: "no fault"},
		{name: "receive: 500", faults: []emulator.Fault{{Op: "ReceiveMessage", Times: 3, Status: 500}}},
		{
			name:   "receive: throttled",
			faults: []emulator.Fault{{Op: "ReceiveMessage", Times: 3, Status: 400, Code: "ThrottlingException"}},
		},
		{name: "receive: reset", faults: []emulator.Fault{{Op: "ReceiveMessage", Times: 3, Reset: true}}},
		{name: "receive: answer lost", faults: []emulator.Fault{{Op: "ReceiveMessage", Times: 1, Lost: true}}},
		{name: "receive: redelivered", faults: []emulator.Fault{{Op: "ReceiveMessage", Times: 2, Redeliver: true}}},
		{name: "download: 500", faults: []emulator.Fault{{Op: "GetObject", Times: 4, Status: 500}}},
		{
			name:   "download: slow down",
			faults: []emulator.Fault{{Op: "GetObject", Times: 4, Status: 503, Code: "SlowDown"}},
		},
		{
			name:   "download: denied for a while",
			faults: []emulator.Fault{{Op: "GetObject", Times: 2, Status: 403, Code: "AccessDenied"}},
		},
		{name: "download: reset at once", faults: []emulator.Fault{{Op: "GetObject", Times: 4, Reset: true}}},
		{
			name:   "download: reset midway",
			faults: []emulator.Fault{{Op: "GetObject", Times: 4, Reset: true, After: 50_000}},
		},
		{
			name:   "download: ends early",
			faults: []emulator.Fault{{Op: "GetObject", Times: 4, Break: true, After: 50_000}},
		},
		{
			name:   "download: corrupt",
			faults: []emulator.Fault{{Op: "GetObject", Times: 2, Corrupt: true, After: 50_000}},
		},
		{name: "download: hangs", faults: []emulator.Fault{{Op: "GetObject", Times: 1, Hang: true, After: 50_000}}},
		{name: "download: slow", faults: []emulator.Fault{{Op: "GetObject", Rate: slow}}},
		{name: "heartbeat: 500", faults: []emulator.Fault{
			{Op: "ChangeMessageVisibilityBatch", Times: 3, Status: 500},
			{Op: "GetObject", Rate: slow},
		}},
		{name: "settle: 500", faults: []emulator.Fault{{Op: "DeleteMessageBatch", Times: 3, Status: 500}}},
		{
			name:   "settle: entry fails",
			faults: []emulator.Fault{{Op: "DeleteMessageBatch", Times: 3, Status: 500, Entries: -1}},
		},
		{name: "settle: answer lost", faults: []emulator.Fault{{Op: "DeleteMessageBatch", Times: 1, Lost: true}}},
		{name: "settle: reset", faults: []emulator.Fault{{Op: "DeleteMessageBatch", Times: 2, Reset: true}}},
		{name: "delivered three times", delivery: emulator.Delivery{Copies: 3}},
		{name: "through SNS", delivery: emulator.Delivery{Envelope: emulator.SNS}},
		{name: "through EventBridge", delivery: emulator.Delivery{Envelope: emulator.EventBridge}},
		{name: "through EventBridge and SNS", delivery: emulator.Delivery{Envelope: emulator.EventBridgeInSNS}},
	} {
		h.emulator().Clear()
		h.emulator().Deliver(c.delivery)
		for _, f := range c.faults {
			h.emulator().Fault(f)
		}
		key := "images/" + c.name + ".tar"
		h.put(key, tarballs.RootFS("hello", 40))
		img := h.WaitActive(key)
		h.WaitDrained()
		events, err := h.Store.History(t.Context(), img.ID)
		h.Check(err)
		ended := 0
		for _, e := range events {
			if e.Kind == store.EventDone && e.Stage == store.StageActivate {
				ended++
			}
		}
		if ended != 1 {
			t.Errorf("%s: activated %d times", c.name, ended)
		}
	}
	h.Stop()
	h.Look()
}

// deadLetterQueue makes one more queue and returns its URL.
func (h *host) deadLetterQueue() string {
	h.T.Helper()
	q, err := h.Cloud.SQS.CreateQueue(h.T.Context(),
		&sqs.CreateQueueInput{QueueName: aws.String(h.Cloud.Name + "-dead")})
	h.Check(err)
	return *q.QueueUrl
}

func (h *host) send(body string) {
	h.T.Helper()
	h.Check(h.Cloud.Send(h.T.Context(), body))
}

// An image that fails too often is given up. Its message goes to quarantine, and back to
// the queue when the fault is gone.
func TestQuarantine(t *testing.T) {
	h := newHost(t, "MAX_ATTEMPTS=3")
	h.Start()
	h.emulator().Fault(emulator.Fault{Op: "GetObject", Status: 403, Code: "AccessDenied"})
	h.put("images/a.tar", tarballs.RootFS("hello", 3))
	h.send("{this is no notification")
	if img := h.WaitEnded("images/a.tar"); img.State != store.StateDead || img.Failures != 3 {
		t.Errorf("ended %s after %d failures, want dead after 3", img.State, img.Failures)
	}
	h.WaitDrained()
	list, err := h.Store.QuarantinedMessages(t.Context())
	h.Check(err)
	if len(list) != 2 {
		t.Fatalf("in quarantine: %+v, want the broken message and the failed image's", list)
	}
	h.emulator().Clear()
	for _, q := range list {
		if strings.Contains(q.Body, "images/a.tar") {
			if q.Attempts != 3 || q.Reason == "" {
				t.Errorf("quarantined without its story: %+v", q)
			}
			h.Consumer("quarantine", "requeue", fmt.Sprint(q.ID))
		} else {
			h.Consumer("quarantine", "drop", fmt.Sprint(q.ID))
		}
	}
	h.WaitFor("the image that was dead is active", func() bool { return h.countImages(store.StateActive) == 1 })
	h.WaitDrained()
	h.Stop()
	h.Look()
}

// With a dead-letter queue configured the message goes there, with the reason and the
// number of attempts.
func TestDeadLetter(t *testing.T) {
	h := newHost(t)
	dlq := h.deadLetterQueue()
	h.Env = append(h.Env, "MAX_ATTEMPTS=2", "SQS_DEAD_LETTER_URL="+dlq)
	h.Start()
	h.emulator().Fault(emulator.Fault{Op: "GetObject", Status: 403, Code: "AccessDenied"})
	h.put("images/a.tar", tarballs.RootFS("hello", 3))
	h.WaitEnded("images/a.tar")
	h.WaitDrained()
	m, err := h.Cloud.SQS.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{
		QueueUrl: aws.String(dlq), WaitTimeSeconds: 1, MessageAttributeNames: []string{"All"},
	})
	h.Check(err)
	if len(m.Messages) != 1 || !strings.Contains(*m.Messages[0].Body, "images/a.tar") {
		t.Fatalf("in the dead-letter queue: %+v", m.Messages)
	}
	a := m.Messages[0].MessageAttributes
	if *a["Attempts"].StringValue != "2" || *a["Reason"].StringValue == "" {
		t.Errorf("attributes %+v", a)
	}
	h.Stop()
	h.Look()
}

// The lease is lost in the middle of a download: the attempt is rolled back and does not
// commit; the redelivered message starts again.
func TestLeaseLost(t *testing.T) {
	h := newHost(t)
	h.Start()
	h.emulator().Fault(emulator.Fault{Op: "GetObject", Times: 1, Rate: 20_000})
	h.put("images/a.tar", tarballs.RootFS("hello", 60))
	h.waitEvent("images/a.tar", "begun download")
	h.emulator().Fault(emulator.Fault{
		Op: "ChangeMessageVisibilityBatch", Times: 1, Entries: -1, Status: 400,
		Code: "ReceiptHandleIsInvalid",
	})
	h.waitEvent("images/a.tar", "undone download")
	h.emulator().Expire(h.Cloud.Name)
	img := h.WaitActive("images/a.tar")
	h.WaitDrained()
	if img.Failures != 0 {
		t.Errorf("a lost lease counts as %d failures", img.Failures)
	}
	h.Stop()
	h.Look()
}

// An object overwritten before it was fetched is superseded by the newer one; one deleted
// before it was fetched has vanished.
func TestOverwrittenAndDeleted(t *testing.T) {
	h := newHost(t)
	h.put("images/a.tar", tarballs.RootFS("old", 3))
	h.Check(h.Cloud.Silence(t.Context())) // the newer event never comes
	h.put("images/a.tar", tarballs.RootFS("new", 3))
	h.Check(h.Cloud.Notify(t.Context()))
	h.put("images/gone.tar", tarballs.RootFS("gone", 3))
	_, err := h.Cloud.S3.DeleteObject(t.Context(),
		&s3.DeleteObjectInput{Bucket: aws.String(h.Cloud.Name), Key: aws.String("images/gone.tar")})
	h.Check(err)
	h.Start()
	if img := h.WaitEnded("images/gone.tar"); img.State != store.StateVanished || img.Failures != 2 {
		t.Errorf("a deleted object ended %s after asking %d times, want vanished after 2", img.State, img.Failures)
	}
	img := h.WaitActive("images/a.tar")
	h.WaitDrained()
	images, err := h.Store.ByKey(t.Context(), "images/a.tar")
	h.Check(err)
	if len(images) != 2 || images[0].State != store.StateSuperseded || images[1].State != store.StateActive {
		t.Errorf("images of the overwritten key: %+v", images)
	}
	snapshots, err := h.Store.SnapshotsOf(t.Context(), img.ID)
	h.Check(err)
	if got := h.readHello(snapshots[0].Path); got != "new" {
		t.Errorf("the snapshot holds %q", got)
	}
	h.Stop()
	h.Look()
}

// Objects whose events were lost are found by a backfill, or submitted by hand; beside
// live events nothing is done twice.
func TestBackfillAndSubmit(t *testing.T) {
	h := newHost(t)
	h.Check(h.Cloud.Silence(t.Context()))
	for i := range 5 {
		h.put(fmt.Sprintf("images/%d.tar", i), tarballs.RootFS("hello", 3))
	}
	h.put("other/x.tar", tarballs.RootFS("hello", 3))
	h.put("images/folder/", nil)
	h.Check(h.Cloud.Notify(t.Context()))
	h.Start()
	h.WaitRunning()
	h.Consumer("submit", "images/3.tar")
	h.WaitActive("images/3.tar")
	if out := h.Consumer("backfill", "--dry-run"); !strings.Contains(out, "4 missing") ||
		strings.Contains(out, "images/3.tar") {
		t.Errorf("backfill --dry-run: %s", out)
	}
	h.put("images/4.tar", tarballs.RootFS("hello", 3)) // its event comes late, with the backfill
	if out := h.Consumer("backfill"); !strings.Contains(out, "listed") {
		t.Errorf("backfill: %s", out)
	}
	for i := range 5 {
		h.WaitActive(fmt.Sprintf("images/%d.tar", i))
	}
	if out := h.Consumer("backfill"); !strings.Contains(out, "0 enqueued") {
		t.Errorf("a second backfill: %s", out)
	}
	if out, code := h.Try("submit", "images/none.tar"); code != 5 {
		t.Errorf("submit of a missing key: exit code %d, %s", code, out)
	}
	h.WaitDrained()
	h.Stop()
	images, err := h.Store.Images(t.Context())
	h.Check(err)
	if len(images) != 5 {
		t.Errorf("%d images, want 5", len(images))
	}
	h.Look()
}

// The daemon itself compares the bucket with the journal when it starts, if it is told
// to.
func TestBackfillAtStart(t *testing.T) {
	h := newHost(t, "BACKFILL_AT_START=true")
	h.Check(h.Cloud.Silence(t.Context()))
	h.put("images/a.tar", tarballs.RootFS("hello", 3))
	h.Start()
	h.WaitActive("images/a.tar")
	h.Stop()
	h.Look()
}

// A stop returns messages to the queue at once if their work was not started.
func TestStopReturnsTheRest(t *testing.T) {
	h := newHost(t, "SHUTDOWN_GRACE=0s", "SQS_VISIBILITY=600s")
	h.emulator().Fault(emulator.Fault{Op: "GetObject", Rate: 20_000})
	for i := range 12 {
		h.put(fmt.Sprintf("images/%02d.tar", i), tarballs.RootFS("hello", 60))
	}
	h.Start()
	h.WaitFor("downloads run", func() bool { return h.overlaps()[store.StageDownload] == 5 })
	h.Stop()
	a, err := h.Cloud.SQS.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{
		QueueUrl: aws.String(h.Cloud.Queue),
		AttributeNames: []sqstypes.QueueAttributeName{
			"ApproximateNumberOfMessages",
			"ApproximateNumberOfMessagesNotVisible",
		},
	})
	h.Check(err)
	// and the test event
	if a.Attributes["ApproximateNumberOfMessagesNotVisible"] != "0" ||
		a.Attributes["ApproximateNumberOfMessages"] != "13" {
		t.Logf("attributes after the stop: %v", a.Attributes)
		if a.Attributes["ApproximateNumberOfMessagesNotVisible"] != "0" {
			t.Errorf("%s messages are invisible after the stop", a.Attributes["ApproximateNumberOfMessagesNotVisible"])
		}
	}
	h.emulator().Clear()
	h.Start("SHUTDOWN_GRACE=1s") // the archive of the last image is removed after it is active
	for i := range 12 {
		h.WaitActive(fmt.Sprintf("images/%02d.tar", i))
	}
	h.WaitDrained()
	h.Stop()
	h.Look()
}

// A stream of duplicates is answered from the journal in flat memory. CIM_DUPLICATES sets
// how many.
func TestDuplicatesInFlatMemory(t *testing.T) {
	n := 900
	if v, err := strconv.Atoi(os.Getenv("CIM_DUPLICATES")); err == nil {
		n = v
	}
	h := newHost(t, "LOG_LEVEL=info", "SQS_VISIBILITY=60s")
	body := tarballs.RootFS("hello", 3)
	h.Start()
	h.put("images/a.tar", body)
	img := h.WaitActive("images/a.tar")
	h.WaitDrained()
	duplicate := message(record("ObjectCreated:Put", h.Cloud.Name, "images/a.tar", md5Hex(body)))
	h.sendOften(n/3, duplicate)
	before, events := h.rss(), h.events(img.ID)
	h.sendOften(n, duplicate)
	after := h.rss()
	t.Logf("%d duplicates: resident memory %d KiB, then %d KiB", n, before, after)
	if after > before+before/2 {
		t.Errorf("memory grew from %d to %d KiB over %d messages", before, after, n)
	}
	if now := h.events(img.ID); now != events {
		t.Errorf("duplicates changed the journal: %d events, then %d", events, now)
	}
	h.Stop()
}

// What a duplicate costs does not depend on how many images are active: the kernel is
// asked for the snapshot of its own image alone.
func TestDuplicatesBesideManyImages(t *testing.T) {
	const images, duplicates = 12, 40
	h := newHost(t, "RECONCILE_INTERVAL=0")
	body := tarballs.RootFS("hello", 3)
	h.Start()
	for i := range images {
		h.put(fmt.Sprintf("images/%d.tar", i), body)
	}
	for i := range images {
		h.WaitActive(fmt.Sprintf("images/%d.tar", i))
	}
	h.WaitDrained()
	before := h.statusIoctls()
	h.sendOften(duplicates, message(record("ObjectCreated:Put", h.Cloud.Name, "images/0.tar", md5Hex(body))))
	if asked := h.statusIoctls() - before; asked < 1 || asked > 2*duplicates {
		t.Errorf("%d duplicates beside %d images took %g dev_status ioctls, want one each", duplicates, images, asked)
	}
	h.Stop()
}

// statusIoctls counts the daemon's questions for single devices.
func (h *host) statusIoctls() float64 {
	h.T.Helper()
	_, text := h.Get("/metrics")
	n, found := sampleOf(text, `dm_ioctl_duration_seconds_count{command="dev_status"}`)
	if !found {
		h.T.Fatal("no count of ioctls")
	}
	return n
}

// sendOften sends the same message n times, a multiple of 40, and waits until all are
// settled.
func (h *host) sendOften(n int, body string) {
	h.T.Helper()
	h.sendEach(n, func(int) string { return body })
}

// sendEach sends the messages 0 to n, a multiple of 40, and waits until all are settled.
func (h *host) sendEach(n int, body func(i int) string) {
	h.T.Helper()
	var wg sync.WaitGroup
	for part := range 4 {
		wg.Go(func() {
			for sent := 0; sent < n/4; sent += 10 {
				var batch []sqstypes.SendMessageBatchRequestEntry
				for i := range 10 {
					batch = append(batch, sqstypes.SendMessageBatchRequestEntry{
						Id:          aws.String(fmt.Sprint(i)),
						MessageBody: aws.String(body(4*(sent+i) + part)),
					})
				}
				if _, err := h.Cloud.SQS.SendMessageBatch(h.T.Context(),
					&sqs.SendMessageBatchInput{QueueUrl: aws.String(h.Cloud.Queue), Entries: batch}); err != nil {
					h.T.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	h.WaitLonger(time.Duration(n)*50*time.Millisecond, "the queue is empty", h.IsDrained)
}

// rss is the daemon's resident memory in KiB.
func (h *host) rss() int {
	h.T.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.PID()))
	h.Check(err)
	for line := range strings.Lines(string(text)) {
		if rest, found := strings.CutPrefix(line, "VmRSS:"); found {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			h.Check(err)
			return n
		}
	}
	h.T.Fatal("no VmRSS")
	return 0
}

// Without its queue the daemon says so, once in a while, and is ready again when the
// queue exists.
func TestQueueMissing(t *testing.T) {
	h := newHost(t)
	h.emulator().Fault(emulator.Fault{
		Op: "ReceiveMessage", Status: http.StatusBadRequest,
		Code: "AWS.SimpleQueueService.NonExistentQueue",
	})
	h.Start()
	h.WaitFor("several polls failed", func() bool { return h.emulator().Calls("ReceiveMessage") >= 4 })
	text := h.Log()
	if n := strings.Count(string(text), "cannot receive messages"); n != 1 {
		t.Errorf("said %d times that messages cannot be received, want once in ten seconds", n)
	}
	h.emulator().Clear()
	h.put("images/a.tar", tarballs.RootFS("hello", 3))
	h.WaitActive("images/a.tar")
	h.WaitDrained()
	h.Stop()
	h.Look()
}

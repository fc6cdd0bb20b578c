package e2e

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"imagemanager.internal/internal/store"
)

// Acceptance tests 1 to 4: one image through the whole pipeline, and once more for nothing.
func TestEndToEnd(t *testing.T) {
	h := newHost(t)
	h.start()
	body := rootfs("hello", 40)
	h.put("images/a b+c.tar", body) // a key that the notification has to encode
	img := h.active("images/a b+c.tar")
	h.drained()
	if img.Blob.Size != int64(len(body)) || img.Blob.SHA256 != sha256Hex(body) {
		t.Errorf("blob %+v is not what was uploaded", img.Blob)
	}
	snapshots, err := h.store.SnapshotsOf(t.Context(), img.ID)
	h.check(err)
	if len(snapshots) != 1 {
		t.Fatalf("%d snapshots, want 1", len(snapshots))
	}
	if got := h.hello(snapshots[0].Path); got != "hello" {
		t.Errorf("the snapshot's file reads %q", got)
	}
	events := h.events(img.ID)
	h.put("images/a b+c.tar", body)
	h.logged("handed off: nothing to do", 1)
	h.drained()
	if again := h.events(img.ID); again != events {
		t.Errorf("the second upload changed the journal: %d events, then %d", events, again)
	}
	h.stop()
	h.whole()
}

// A further snapshot is made beside the running daemon and has blocks of its own.
func TestFurtherSnapshot(t *testing.T) {
	h := newHost(t)
	h.start()
	h.put("images/a.tar", rootfs("hello", 3))
	img := h.active("images/a.tar")
	h.consumer("snapshot", "images/a.tar")
	h.consumer("snapshot", fmt.Sprint(img.ID))
	snapshots, err := h.store.SnapshotsOf(t.Context(), img.ID)
	h.check(err)
	if len(snapshots) != 3 {
		t.Errorf("%d snapshots, want 3", len(snapshots))
	}
	for _, sn := range snapshots {
		if got := h.hello(sn.Path); got != "hello" {
			t.Errorf("%s reads %q", sn.Path, got)
		}
	}
	h.stop()
	h.whole()
}

// Acceptance test 6: ten images at once keep to the caps, and each has one device and one snapshot; the journal proves it.
func TestTenAtOnce(t *testing.T) {
	h := newHost(t)
	for i := range 10 {
		h.put(fmt.Sprintf("images/%d.tar", i), rootfs(fmt.Sprint(i), 60))
	}
	h.start()
	for i := range 10 {
		h.active(fmt.Sprintf("images/%d.tar", i))
	}
	h.drained()
	h.stop()
	most := h.overlaps()
	t.Logf("at once, by the journal: %v", most)
	if most[store.Download] > 5 || most[store.Unpack] > 2 || most[store.Activate] > 1 {
		t.Errorf("more at once than the caps allow: %v", most)
	}
	if most[store.Unpack] != 2 {
		t.Errorf("unpacks never overlapped: this test proves nothing")
	}
	devices, err := h.store.Devices(t.Context())
	h.check(err)
	count := map[string]int{}
	for _, d := range devices {
		count[fmt.Sprint(d.Image, d.Kind)]++
	}
	if len(devices) != 20 || len(count) != 20 {
		t.Errorf("%d devices of %d kinds, want one device and one snapshot an image", len(devices), len(count))
	}
	h.whole()
}

// Acceptance test 6: ten concurrent messages about one object make one job.
func TestOneObjectTenMessages(t *testing.T) {
	h := newHost(t)
	h.put("images/a.tar", rootfs("a", 60))
	m, err := h.cloud.SQS.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: aws.String(h.cloud.Queue), VisibilityTimeout: 1, WaitTimeSeconds: 1, MaxNumberOfMessages: 10})
	h.check(err)
	var event types.Message
	for _, msg := range m.Messages {
		if strings.Contains(*msg.Body, "images/a.tar") {
			event = msg
		}
	}
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			_, err := h.cloud.SQS.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: aws.String(h.cloud.Queue), MessageBody: event.Body})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	h.start()
	img := h.active("images/a.tar")
	h.drained()
	h.stop()
	kinds := map[string]int{}
	events, err := h.store.History(t.Context(), img.ID)
	h.check(err)
	for _, e := range events {
		kinds[string(e.Kind)+" "+string(e.Stage)]++
	}
	for _, once := range []string{"queued ", "begun download", "begun unpack", "begun activate", "done activate"} {
		if kinds[once] != 1 {
			t.Errorf("%q happened %d times, want once: %v", once, kinds[once], kinds)
		}
	}
	h.whole()
}

// A deleted or damaged archive of an active image is fetched again when the next message comes; the device stays.
func TestBlobLost(t *testing.T) {
	damage := map[string]func(path string) error{
		"deleted":   os.Remove,
		"truncated": func(path string) error { return os.Truncate(path, 100) },
		"overwritten": func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteAt([]byte("garbage"), 2000)
			return err
		},
	}
	h := newHost(t)
	h.start()
	body := rootfs("hello", 5)
	for name, harm := range damage {
		key := "images/" + name + ".tar"
		h.put(key, body)
		before := h.active(key)
		h.drained()
		h.check(harm(before.Blob.Path))
		h.put(key, body)
		h.drained()
		after := h.active(key)
		if after.Tree.Device != before.Tree.Device || after.Attempt == before.Attempt {
			t.Errorf("%s: before %+v, after %+v: want a new download and the same device", name, before.Progress, after.Progress)
		}
		if now, err := os.ReadFile(after.Blob.Path); err != nil || !bytes.Equal(now, body) {
			t.Errorf("%s: the archive is not whole again (%v)", name, err)
		}
	}
	h.stop()
	h.whole()
}

// After a reboot there is no device-mapper device and no loop: `run` attaches the pool and activates the snapshots again.
func TestReboot(t *testing.T) {
	h := newHost(t)
	h.start()
	h.put("images/a.tar", rootfs("hello", 5))
	img := h.active("images/a.tar")
	h.drained()
	h.stop()
	h.consumer("pool", "detach")
	h.start()
	snapshots, err := h.store.SnapshotsOf(t.Context(), img.ID)
	h.check(err)
	h.running()
	if got := h.hello(snapshots[0].Path); got != "hello" {
		t.Errorf("the snapshot's file reads %q", got)
	}
	h.stop()
	h.whole()
}

// SIGHUP changes between the configured log level and debug.
func TestLogLevel(t *testing.T) {
	h := newHost(t, "LOG_LEVEL=info")
	h.start()
	h.running()
	for i, level := range []string{"debug", "info"} {
		h.check(h.daemon.Process.Signal(syscall.SIGHUP))
		h.logged("log level changed", i+1)
		text, err := os.ReadFile(h.log.Name())
		h.check(err)
		if !bytes.Contains(text, []byte(`"log_level":"`+level+`"`)) {
			t.Errorf("after %d signals the level is not %s", i+1, level)
		}
	}
	h.stop()
}

// One daemon a state directory, and a configuration that lists all its problems.
func TestRefusesToStart(t *testing.T) {
	h := newHost(t)
	h.start()
	h.running()
	if out, code := h.try("run"); code != 4 || !strings.Contains(out, "another instance") {
		t.Errorf("a second daemon: exit code %d, %s", code, out)
	}
	if out, code := h.try("pool", "detach"); code != 4 {
		t.Errorf("detach beside the daemon: exit code %d, %s", code, out)
	}
	h.stop()
	good := h.env
	h.env = append(slices.Clone(good), "S3_BUCKET=", "MAX_UNPACKS=0", "IMAGE_POLICY=lenient", "SQS_WAIT=1m")
	out, code := h.try("run")
	h.env = good
	for _, name := range []string{"S3_BUCKET", "MAX_UNPACKS", "IMAGE_POLICY", "SQS_WAIT"} {
		if code != 2 || !strings.Contains(out, name) {
			t.Errorf("exit code %d, %s is not named in: %s", code, name, out)
		}
	}
}

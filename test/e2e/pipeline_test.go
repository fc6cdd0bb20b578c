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
	tarballs "imagemanager.internal/test/images"
)

// Acceptance tests 1 to 4: one image goes through the whole pipeline. Its next event
// changes nothing.
func TestEndToEnd(t *testing.T) {
	h := newHost(t)
	h.Start()
	body := tarballs.RootFS("hello", 40)
	h.put("images/a b+c.tar", body) // a key that the notification has to encode
	img := h.WaitActive("images/a b+c.tar")
	h.WaitDrained()
	if img.Blob.Size != int64(len(body)) || img.Blob.SHA256 != sha256Hex(body) {
		t.Errorf("blob %+v is not what was uploaded", img.Blob)
	}
	snapshots, err := h.Store.SnapshotsOf(t.Context(), img.ID)
	h.Check(err)
	if len(snapshots) != 1 {
		t.Fatalf("%d snapshots, want 1", len(snapshots))
	}
	if got := h.readHello(snapshots[0].Path); got != "hello" {
		t.Errorf("the snapshot's file reads %q", got)
	}
	events := h.events(img.ID)
	h.put("images/a b+c.tar", body)
	h.waitLogged("handed off: nothing to do", 1)
	h.WaitDrained()
	if again := h.events(img.ID); again != events {
		t.Errorf("the second upload changed the journal: %d events, then %d", events, again)
	}
	h.Stop()
	h.Look()
}

// A further snapshot is made beside the running daemon and has blocks of its own.
func TestFurtherSnapshot(t *testing.T) {
	h := newHost(t)
	h.Start()
	h.put("images/a.tar", tarballs.RootFS("hello", 3))
	img := h.WaitActive("images/a.tar")
	h.Consumer("snapshot", "images/a.tar")
	h.Consumer("snapshot", fmt.Sprint(img.ID))
	snapshots, err := h.Store.SnapshotsOf(t.Context(), img.ID)
	h.Check(err)
	if len(snapshots) != 3 {
		t.Errorf("%d snapshots, want 3", len(snapshots))
	}
	for _, sn := range snapshots {
		if got := h.readHello(sn.Path); got != "hello" {
			t.Errorf("%s reads %q", sn.Path, got)
		}
	}
	h.Stop()
	h.Look()
}

// Acceptance test 6: ten images at once keep to the caps, and each has one device and one
// snapshot; the journal proves it.
func TestTenAtOnce(t *testing.T) {
	h := newHost(t)
	for i := range 10 {
		h.put(fmt.Sprintf("images/%d.tar", i), tarballs.RootFS(fmt.Sprint(i), 60))
	}
	h.Start()
	for i := range 10 {
		h.WaitActive(fmt.Sprintf("images/%d.tar", i))
	}
	h.WaitDrained()
	h.Stop()
	most := h.overlaps()
	t.Logf("at once, by the journal: %v", most)
	if most[store.StageDownload] > 5 || most[store.StageUnpack] > 2 || most[store.StageActivate] > 1 {
		t.Errorf("more at once than the caps allow: %v", most)
	}
	if most[store.StageUnpack] != 2 {
		t.Errorf("unpacks never overlapped: this test proves nothing")
	}
	devices, err := h.Store.Devices(t.Context())
	h.Check(err)
	count := map[string]int{}
	for _, d := range devices {
		count[fmt.Sprint(d.Image, d.Kind)]++
	}
	if len(devices) != 20 || len(count) != 20 {
		t.Errorf("%d devices of %d kinds, want one device and one snapshot an image", len(devices), len(count))
	}
	h.Look()
}

// Acceptance test 6: ten concurrent messages about one object make one job.
func TestOneObjectTenMessages(t *testing.T) {
	h := newHost(t)
	h.put("images/a.tar", tarballs.RootFS("a", 60))
	m, err := h.Cloud.SQS.ReceiveMessage(t.Context(),
		&sqs.ReceiveMessageInput{
			QueueUrl: aws.String(h.Cloud.Queue), VisibilityTimeout: 1, WaitTimeSeconds: 1,
			MaxNumberOfMessages: 10,
		})
	h.Check(err)
	var event types.Message
	for _, msg := range m.Messages {
		if strings.Contains(*msg.Body, "images/a.tar") {
			event = msg
		}
	}
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			_, err := h.Cloud.SQS.SendMessage(t.Context(),
				&sqs.SendMessageInput{QueueUrl: aws.String(h.Cloud.Queue), MessageBody: event.Body})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	h.Start()
	img := h.WaitActive("images/a.tar")
	h.WaitDrained()
	h.Stop()
	kinds := map[string]int{}
	events, err := h.Store.History(t.Context(), img.ID)
	h.Check(err)
	for _, e := range events {
		kinds[string(e.Kind)+" "+string(e.Stage)]++
	}
	for _, once := range []string{"queued ", "begun download", "begun unpack", "begun activate", "done activate"} {
		if kinds[once] != 1 {
			t.Errorf("%q happened %d times, want once: %v", once, kinds[once], kinds)
		}
	}
	h.Look()
}

// A deleted or damaged archive of an active image is fetched again when the next message
// comes; the device stays.
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
	h.Start()
	body := tarballs.RootFS("hello", 5)
	for name, harm := range damage {
		key := "images/" + name + ".tar"
		h.put(key, body)
		before := h.WaitActive(key)
		h.WaitDrained()
		h.Check(harm(before.Blob.Path))
		h.put(key, body)
		h.WaitDrained()
		after := h.WaitActive(key)
		if after.Tree.Device != before.Tree.Device || after.Attempt == before.Attempt {
			t.Errorf("%s: before %+v, after %+v: want a new download and the same device",
				name, before.Progress, after.Progress)
		}
		if now, err := os.ReadFile(after.Blob.Path); err != nil || !bytes.Equal(now, body) {
			t.Errorf("%s: the archive is not whole again (%v)", name, err)
		}
	}
	h.Stop()
	h.Look()
}

// After a reboot there is no device-mapper device and no loop: `run` attaches the pool
// and activates the snapshots again.
func TestReboot(t *testing.T) {
	h := newHost(t)
	h.Start()
	h.put("images/a.tar", tarballs.RootFS("hello", 5))
	img := h.WaitActive("images/a.tar")
	h.WaitDrained()
	h.Stop()
	h.Consumer("pool", "detach")
	h.Start()
	snapshots, err := h.Store.SnapshotsOf(t.Context(), img.ID)
	h.Check(err)
	h.WaitRunning()
	if got := h.readHello(snapshots[0].Path); got != "hello" {
		t.Errorf("the snapshot's file reads %q", got)
	}
	h.Stop()
	h.Look()
}

// SIGHUP changes between the configured log level and debug.
func TestLogLevel(t *testing.T) {
	h := newHost(t, "LOG_LEVEL=info")
	h.Start()
	h.WaitRunning()
	for i, level := range []string{"debug", "info"} {
		h.Signal(syscall.SIGHUP)
		h.waitLogged("log level changed", i+1)
		text := h.Log()
		if !bytes.Contains(text, []byte(`"log_level":"`+level+`"`)) {
			t.Errorf("after %d signals the level is not %s", i+1, level)
		}
	}
	h.Stop()
}

// A state directory has one daemon, and a configuration error lists all problems.
func TestRefusesToStart(t *testing.T) {
	h := newHost(t)
	h.Start()
	h.WaitRunning()
	if out, code := h.Try("run"); code != 4 || !strings.Contains(out, "another instance") {
		t.Errorf("a second daemon: exit code %d, %s", code, out)
	}
	if out, code := h.Try("pool", "detach"); code != 4 {
		t.Errorf("detach beside the daemon: exit code %d, %s", code, out)
	}
	h.Stop()
	good := h.Env
	h.Env = append(slices.Clone(good), "S3_BUCKET=", "MAX_UNPACKS=0", "IMAGE_POLICY=lenient", "SQS_WAIT=1m")
	out, code := h.Try("run")
	h.Env = good
	for _, name := range []string{"S3_BUCKET", "MAX_UNPACKS", "IMAGE_POLICY", "SQS_WAIT"} {
		if code != 2 || !strings.Contains(out, name) {
			t.Errorf("exit code %d, %s is not named in: %s", code, name, out)
		}
	}
}

package e2e

import (
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"imagemanager.internal/internal/store"
	"imagemanager.internal/test/emulator"
	tarballs "imagemanager.internal/test/images"
)

// waitCount waits until n images are in a state.
func (h *host) waitCount(state store.State, n int) {
	h.T.Helper()
	h.WaitFor(fmt.Sprintf("%d images are %s", n, state), func() bool { return h.countImages(state) == n })
}

// waitHealed waits until images 0 to n-1 are made without help, and checks that no
// failure was counted against them.
func (h *host) waitHealed(n int) {
	h.T.Helper()
	h.waitCount(store.StateActive, n)
	h.waitResumed()
	for i := range n {
		h.checkNoFailures(fmt.Sprintf("images/%d.tar", i))
	}
	h.WaitDrained()
	h.Stop()
	h.Look()
}

// S3 answers every request with 503 for a while: /readyz says so, no failure is counted
// against an image, and the daemon recovers by itself.
func TestOutageOfS3(t *testing.T) {
	h := newHost(t, "MAX_ATTEMPTS=2")
	h.Start()
	h.WaitRunning()
	h.emulator().Fault(emulator.Fault{Op: "GetObject", Status: 503, Code: "SlowDown"})
	const n = 5
	for i := range n {
		h.put(fmt.Sprintf("images/%d.tar", i), tarballs.RootFS("hello", 3))
	}
	h.waitPaused(time.Now(), "not the image's fault")
	calls := h.emulator().Calls("GetObject")
	h.WaitFor("it is tried again and again", func() bool { return h.emulator().Calls("GetObject") > calls+4*n })
	if dead := h.countImages(store.StateDead); dead > 0 {
		t.Errorf("%d of %d images were given up for an outage", dead, n)
	}
	h.emulator().Clear()
	h.waitHealed(n)
}

// The bucket itself does not answer, for listings either: nothing is taken from the queue
// at all until it does.
func TestBucketDoesNotAnswer(t *testing.T) {
	h := newHost(t, "MAX_ATTEMPTS=2")
	h.Start()
	h.WaitRunning()
	for _, op := range []string{"GetObject", "ListObjectsV2"} {
		h.emulator().Fault(emulator.Fault{Op: op, Status: 403, Code: "InvalidAccessKeyId"})
	}
	h.put("images/a.tar", tarballs.RootFS("hello", 3))
	h.waitPaused(time.Now(), "see to the credentials")
	received := h.emulator().Calls("ReceiveMessage")
	h.put("images/b.tar", tarballs.RootFS("hello", 3))
	looks := h.emulator().Calls("ListObjectsV2")
	h.WaitFor("the bucket is looked at again", func() bool { return h.emulator().Calls("ListObjectsV2") > looks+2 })
	if now := h.emulator().Calls("ReceiveMessage"); now > received+1 { // one may have been under way
		t.Errorf("%d polls while the bucket does not answer", now-received)
	}
	h.emulator().Clear()
	h.waitCount(store.StateActive, 2)
	h.checkNoFailures("images/a.tar")
	h.WaitDrained()
	h.Stop()
}

// One object is denied, and only that one: the others go on, and it alone is given up.
func TestOneObjectDenied(t *testing.T) {
	h := newHost(t, "MAX_ATTEMPTS=3")
	h.Start()
	h.WaitRunning()
	h.emulator().Fault(emulator.Fault{
		Op: "GetObject", Target: h.Cloud.Name + "/images/denied.tar", Status: 403,
		Code: "AccessDenied",
	})
	h.put("images/denied.tar", tarballs.RootFS("hello", 3))
	for i := range 4 {
		h.put(fmt.Sprintf("images/%d.tar", i), tarballs.RootFS("hello", 3))
	}
	h.waitCount(store.StateActive, 4)
	if img := h.WaitEnded("images/denied.tar"); img.State != store.StateDead || img.Failures != 3 {
		t.Errorf("the denied object: %+v", img.Progress)
	}
	h.waitResumed()
	h.WaitDrained()
	h.Stop()
}

// An operator purges the queue, or a message's retention ends, while an image waits for
// its next attempt: the image is still work. It goes on by itself; `submit` makes it go
// on now.
func TestQueuePurged(t *testing.T) {
	for _, c := range []struct{ name, visibility, submit string }{
		{"by itself", "SQS_VISIBILITY=10s", ""},
		{"submitted", "SQS_VISIBILITY=1h", "images/a.tar"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t, "RETRY_BACKOFF=5s", c.visibility)
			h.Start()
			h.emulator().Fault(emulator.Fault{Op: "GetObject", Status: 404, Code: "NoSuchKey", Times: 1})
			h.put("images/a.tar", tarballs.RootFS("hello", 3))
			h.waitEvent("images/a.tar", "failed download")
			h.Check(h.Cloud.Purge(t.Context()))
			if c.submit != "" {
				h.Consumer("submit", c.submit)
			}
			h.WaitActive("images/a.tar")
			h.Stop()
			h.Look()
		})
	}
}

// An image that kills the daemon every time it is unpacked (a panic, the OOM killer) is
// tried alone, then given up, and can be removed. Another image is made meanwhile.
func TestImageThatKillsTheDaemon(t *testing.T) {
	h := newHost(t, "MAX_CUT_OFFS=2")
	h.put("images/p.tar", tarballs.RootFS("p", 3))
	killed := 0
	for range 8 {
		h.Start("CIM_CRASH_AT=amid:extract")
		if !h.WaitKilled(15 * time.Second) {
			break
		}
		killed++
	}
	img := h.ImagesOf("images/p.tar")[0]
	if killed != 3 || img.State != store.StateDead || !strings.Contains(img.Reason, "died") {
		t.Errorf("killed the daemon %d times, want 3; %+v", killed, img.Progress)
	}
	h.Start()
	h.put("images/good.tar", tarballs.RootFS("hello", 3))
	h.WaitActive("images/good.tar")
	h.WaitDrained()
	if img := h.ImagesOf("images/p.tar")[0]; img.State != store.StateDead {
		t.Errorf("its message, delivered again, brought it back: %+v", img.Progress)
	}
	h.Consumer("rm", "--force", "images/p.tar")
	h.Stop()
	h.Look()
}

// Uploaded, deleted before it was fetched, uploaded again with the same bytes: the object
// that is there is made.
func TestDeletedAndUploadedAgain(t *testing.T) {
	body := tarballs.RootFS("hello", 3)
	for name, back := range map[string]func(h *host){
		"its own event": func(h *host) { h.put("images/a.tar", body) },
		"backfill":      func(h *host) { h.putWithoutEvent("images/a.tar", body); h.Consumer("backfill") },
		"submit": func(h *host) {
			h.putWithoutEvent("images/a.tar", body)
			h.Consumer("submit",
				"images/a.tar")
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.put("images/a.tar", body)
			h.deleteObject("images/a.tar")
			h.Start()
			if img := h.WaitEnded("images/a.tar"); img.State != store.StateVanished {
				t.Fatal(img.State)
			}
			back(h)
			h.WaitFor("it is active", func() bool { return h.ImagesOf("images/a.tar")[0].State == store.StateActive })
			h.WaitDrained()
			h.Stop()
		})
	}
}

// putWithoutEvent uploads an object without an event.
func (h *host) putWithoutEvent(key string, body []byte) {
	h.T.Helper()
	h.Check(h.Cloud.Silence(h.T.Context()))
	h.put(key, body)
	h.Check(h.Cloud.Notify(h.T.Context()))
}

// A key holds A, then B before A was fetched, then A again: the last upload also
// becomes an image.
func TestOverwrittenAndBack(t *testing.T) {
	h := newHost(t)
	a, b := tarballs.RootFS("hello", 3), tarballs.RootFS("other", 3)
	h.put("images/x.tar", a)
	h.put("images/x.tar", b)
	h.Start()
	h.waitCount(store.StateSuperseded, 1)
	h.waitCount(store.StateActive, 1)
	h.WaitDrained()
	h.put("images/x.tar", a)
	h.waitCount(store.StateActive, 2)
	h.WaitDrained()
	h.Stop()
	h.Look()
}

// An image is refused with a text that names a remedy. The operator follows it, and
// uploads the object again or submits it: the image is made. Without the remedy it stays
// refused.
func TestRemedyOfARefusal(t *testing.T) {
	h := newHost(t)
	body := tarballs.RootFS("x", 1, tarballs.Entry{Name: "usr/su", Mode: 0o4755, Body: "x"})
	for _, key := range []string{"images/x.tar", "images/y.tar"} {
		h.put(key, body)
	}
	h.Start()
	if img := h.WaitEnded("images/x.tar"); !strings.Contains(img.Reason, "IMAGE_POLICY=distro") {
		t.Fatal(img.State, img.Reason)
	}
	h.WaitDrained() // a message that comes while the job ends joins it
	h.put("images/x.tar", body)
	h.waitLogged("handed off: nothing to do", 1)
	h.WaitDrained()
	h.Stop()
	h.Start("IMAGE_POLICY=distro")
	h.WaitRunning()
	h.put("images/x.tar", body)
	h.TryWith([]string{"IMAGE_POLICY=distro"}, "submit", "images/y.tar")
	h.waitCount(store.StateActive, 2)
	h.WaitDrained()
	h.Stop()
	h.Look()
}

// While every message is about another bucket, none leaves the queue, and /readyz says
// why. The first message about the daemon's own bucket ends that.
func TestOnlyForeignMessages(t *testing.T) {
	h := newHost(t, "S3_PREFIX=other/")
	h.Start()
	h.WaitRunning()
	for i := range 5 {
		h.put(fmt.Sprintf("images/%d.tar", i), tarballs.RootFS("hello", 3))
	}
	h.waitPaused(time.Now(), "correct S3_BUCKET or S3_PREFIX")
	visible := func() bool { return h.emulator().Calls("ReceiveMessage") > 2 }
	h.WaitFor("it looks at another one", visible)
	kept, err := h.Store.QuarantinedMessages(t.Context())
	h.Check(err)
	if len(kept) > 0 || h.IsDrained() {
		t.Errorf("%d messages left the queue for a slip in the configuration", len(kept))
	}
	h.Check(h.Cloud.Purge(t.Context()))
	h.Stop()
	h.Env = append(h.Env, "S3_PREFIX=images/")
	h.Start()
	for i := range 5 {
		h.put(fmt.Sprintf("images/%d.tar", i), tarballs.RootFS("hello", 3))
	}
	h.waitCount(store.StateActive, 5)
	if code, text := h.Get("/readyz"); code != http.StatusOK {
		t.Error(code, text)
	}
	h.WaitDrained()
	h.Stop()
}

// A tool of the machine is broken: every image fails, no failure is counted, /readyz says
// so, and all images are made once the tool works again.
func TestBrokenTool(t *testing.T) {
	h := newHost(t, "MAX_ATTEMPTS=2", "SQS_VISIBILITY=60s")
	tool, err := exec.LookPath("mke2fs")
	h.Check(err)
	broken := `mount --bind /dev/null "$0" && exec "$1" run` // in a mount namespace of the daemon's own
	h.StartAs(exec.Command("unshare", "--mount", "sh", "-c", broken, tool, h.Program()))
	h.WaitRunning()
	const n = 3
	for i := range n {
		h.put(fmt.Sprintf("images/%d.tar", i), tarballs.RootFS("hello", 3))
	}
	h.waitPaused(time.Now(), "with its tools on the PATH")
	if out, err := exec.Command("nsenter", "--mount=/proc/"+fmt.Sprint(h.PID())+"/ns/mnt", "umount", tool).
		CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	h.waitHealed(n)
}

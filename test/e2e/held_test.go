package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
	"imagemanager.internal/test/disks"
	tarballs "imagemanager.internal/test/images"
)

// holdDevice opens the first image device that becomes active, read-only, and keeps it
// open until release is called.
func (h *host) holdDevice() (release func()) {
	h.T.Helper()
	stop, holder := make(chan struct{}), make(chan *os.File, 1) // buffered: release comes later
	go func() {
		defer close(holder)
		again := time.NewTicker(time.Millisecond)
		defer again.Stop()
		for {
			list, _ := filepath.Glob("/dev/mapper/cim-" + poolName(h.T) + "-image-*")
			for _, p := range list {
				if f, err := os.Open(p); err == nil {
					holder <- f
					return
				}
			}
			select {
			case <-stop:
				return
			case <-again.C:
			}
		}
	}()
	return func() {
		close(stop)
		if f := <-holder; f != nil {
			h.Check(f.Close())
		}
	}
}

// waitTried waits until a key's image is terminal or has failed once.
func (h *host) waitTried(key string) {
	h.T.Helper()
	h.WaitFor(key+" is tried", func() bool {
		images := h.ImagesOf(key)
		return len(images) == 1 &&
			(images[0].State != store.StatePending || !images[0].Running && images[0].Attempt > 1)
	})
}

// waitPath waits until there is a device at the path.
func (h *host) waitPath(path string) {
	h.T.Helper()
	h.WaitFor(path+" is there", func() bool { _, err := os.Stat(path); return err == nil })
}

func (h *host) deleteObject(key string) {
	h.T.Helper()
	_, err := h.Cloud.S3.DeleteObject(h.T.Context(),
		&s3.DeleteObjectInput{Bucket: aws.String(h.Cloud.Name), Key: aws.String(key)})
	h.Check(err)
}

// Another program holds one image's device open: the daemon starts nevertheless, says so,
// and works on the other images. When the device is closed, it is removed.
func TestStartWithADeviceHeld(t *testing.T) {
	h := newHost(t, "MAX_ATTEMPTS=1")
	release := h.holdDevice()
	h.put("images/x.tar", tarballs.RootFS("x", 300))
	h.Start("RECONCILE_INTERVAL=0")
	h.waitTried("images/x.tar")
	h.Kill()
	h.Start("RECONCILE_INTERVAL=0")
	h.WaitRunning()
	if log := string(h.NewestLog()); !strings.Contains(log, "end whoever has it open") ||
		!strings.Contains(log, "device is in use (") {
		t.Error("the log names neither the holder nor the remedy")
	}
	if _, text := h.Get("/metrics"); !strings.Contains(text, "imagemanager_reconcile_problems 1") {
		t.Error("no metric counts it")
	}
	h.put("images/good.tar", tarballs.RootFS("good", 3))
	h.WaitActive("images/good.tar")
	h.Kill()
	h.Start()
	h.WaitRunning()
	release()
	h.WaitEnded("images/x.tar")
	h.WaitDrained()
	h.Stop()
	h.Look()
}

// Another device has the name of a snapshot, which therefore cannot be activated after a
// reboot: the daemon starts, the others are served, and it is when the name is free.
func TestStartWithANameTaken(t *testing.T) {
	h := newHost(t)
	h.Start()
	img := h.makeFirst()
	h.put("images/b.tar", tarballs.RootFS("hello", 3))
	other := h.WaitActive("images/b.tar")
	h.WaitDrained()
	h.Stop()
	h.Consumer("pool", "detach")
	taken := filepath.Base(h.snapshots(img.ID)[0].Path)
	disks.Run(t, "dmsetup", "create", taken, "--table", "0 8 error")
	h.unclaimed["dm_device"] = 1
	h.Start()
	h.WaitRunning()
	if code, text := h.Get("/readyz"); code != http.StatusOK {
		t.Errorf("/readyz: %d %s", code, text)
	}
	if log := string(h.NewestLog()); !strings.Contains(log, "rename or remove that one") ||
		!strings.Contains(log, taken) {
		t.Error("the log names neither the device nor the remedy")
	}
	h.checkReadable(other)
	disks.Run(t, "dmsetup", "remove", taken)
	h.unclaimed["dm_device"] = 0
	h.waitClaimed()
	h.waitPath(h.snapshots(img.ID)[0].Path)
	h.checkReadable(img)
	h.Stop()
	h.Look()
}

// An operator removes an active snapshot with dmsetup: the next reconcile brings it back,
// and it reads as before.
func TestSnapshotRemovedByHand(t *testing.T) {
	h := newHost(t)
	h.Start()
	img := h.makeFirst()
	h.WaitDrained()
	path := h.snapshots(img.ID)[0].Path
	h.Check(h.writeFile(path, "its user's").Close())
	disks.Run(t, "dmsetup", "remove", filepath.Base(path))
	h.waitPath(path)
	if got := h.readHello(path); got != "its user's" {
		t.Errorf("it reads %q", got)
	}
	h.Stop()
	h.Look()
}

// An image was sealed once, then given up, and its devices were removed. Its object is
// gone when it is asked for again: the image is not active, because it has no device.
func TestActiveHasItsDevice(t *testing.T) {
	h := newHost(t, "MAX_ATTEMPTS=1")
	release := h.holdDevice()
	h.put("images/x.tar", tarballs.RootFS("x", 300))
	h.Start("RECONCILE_INTERVAL=0")
	h.waitTried("images/x.tar")
	h.Kill()
	release()
	h.deleteObject("images/x.tar")
	h.Start()
	h.WaitRunning()
	list, err := h.Store.QuarantinedMessages(t.Context())
	h.Check(err)
	for _, q := range list {
		h.Consumer("quarantine", "requeue", mustJSON(q.ID))
	}
	h.WaitDrained()
	for _, img := range h.ImagesOf("images/x.tar") {
		devices, err := h.Store.DevicesOf(t.Context(), img.ID)
		h.Check(err)
		if img.State == store.StateActive && len(devices) == 0 {
			out, code := h.Try("verify", "images/x.tar")
			t.Errorf("image %d is active and has no device; verify: %d %s", img.ID, code, out)
		}
	}
	h.Stop()
	h.Look()
}

// Everything of an image is lost but a snapshot that its user has written to, and it
// cannot be made again: whatever the verdict, the snapshot stays, the image is active and
// says what it lacks, through restarts and reconciles. Only `consumer rm` removes it.
func TestHandedOutOutlivesItsImage(t *testing.T) {
	h := newHost(t, "MAX_ATTEMPTS=2")
	h.Start()
	img := h.makeFirst()
	h.WaitDrained()
	h.Stop()
	sn := h.snapshots(img.ID)[0]
	h.Check(h.writeFile(sn.Path, "its user's").Close())
	h.deleteObject(img.Key)
	h.Check(os.Remove(img.Blob.Path))
	pool := h.pool()
	h.Check(pool.Delete(devmapper.ID(img.Tree.Device)))
	for range 2 {
		h.Start()
		h.WaitRunning()
		if now := h.WaitActive(img.Key); !strings.HasPrefix(now.Reason, "its own device is missing: ") ||
			now.Tree != nil {
			t.Errorf("%+v, want it to name what is missing", now.Progress)
		}
		if now := h.snapshots(img.ID); len(now) != 1 || now[0] != sn {
			t.Fatalf("snapshots: %+v, want %+v", now, sn)
		}
		if got := h.readHello(sn.Path); got != "its user's" {
			t.Errorf("what its user wrote is gone: %q", got)
		}
		h.Stop()
		h.Look()
	}
	h.Consumer("rm", "--force", img.Key)
	if h.hasThin(pool, sn.Device) {
		t.Error("it is not removed by an operator")
	}
	h.Look()
}

// A device does not answer in the middle of an unpack, which therefore never comes back:
// only its image waits. The worker and the message are free, and other images are made.
// When the device answers again, so is this one.
func TestDeviceDoesNotAnswer(t *testing.T) {
	h := newHost(t, "UNPACK_TIMEOUT=5s", "MAX_UNPACKS=1", "RECONCILE_INTERVAL=0")
	h.Start()
	h.WaitRunning()
	key, device := h.stopInUnpack()
	name := h.imageDevice(device)
	disks.Run(t, "dmsetup", "suspend", "--nolockfs", "--noflush", name)
	h.Signal(syscall.SIGCONT)
	h.WaitFor("the log says that it does not come back",
		func() bool { return strings.Contains(string(h.NewestLog()), "does not come back") })
	good := h.makeFirst()
	h.checkReadable(good)
	if img := h.ImagesOf(key)[0]; img.State != store.StatePending || img.Failures != 1 || img.Running {
		t.Errorf("the image whose device does not answer: %+v", img.Progress)
	}
	disks.Run(t, "dmsetup", "resume", name)
	h.WaitActive(key)
	h.WaitDrained()
	h.Stop()
	h.Consumer("verify", "--all")
	h.Look()
}

// stopInUnpack uploads an image and stops the daemon while it writes the image's tree.
// The device is mounted then: before that, the daemon would activate it once more, and so
// resume it. A daemon that was faster is let go on, and another image is tried.
func (h *host) stopInUnpack() (key string, device int64) {
	h.T.Helper()
	for i := range 10 {
		key = fmt.Sprintf("images/x%d.tar", i)
		h.put(key, tarballs.RootFS(fmt.Sprint("hello", i), 3, big(60)))
		h.waitEvent(key, "step unpack formatted")
		id := h.ImagesOf(key)[0].ID
		h.WaitFor("the device is mounted", func() bool {
			var formatted bool
			device, formatted = h.formatted(id)
			return !formatted || h.isOpen(device)
		})
		h.Signal(syscall.SIGSTOP)
		if _, formatted := h.formatted(id); formatted && h.isOpen(device) {
			return key, device
		}
		h.Signal(syscall.SIGCONT)
		h.WaitActive(key)
	}
	h.T.Fatal("the daemon was faster than the test ten times")
	return "", 0
}

// formatted returns the image's device, and reports whether it is not filled yet.
func (h *host) formatted(image int64) (device int64, is bool) {
	h.T.Helper()
	devices, err := h.Store.DevicesOf(h.T.Context(), image)
	h.Check(err)
	if len(devices) == 0 {
		return 0, false
	}
	return devices[0].ID, devices[0].State == store.DeviceFormatted
}

// isOpen reports whether somebody has an image's device open, such as by a mount.
func (h *host) isOpen(device int64) bool {
	h.T.Helper()
	out, err := exec.CommandContext(h.T.Context(), "dmsetup", "info", "--columns", "--noheadings", "-o", "open",
		h.imageDevice(device)).Output()
	return err == nil && strings.TrimSpace(string(out)) != "0"
}

// imageDevice is the name of an image's device while it is active.
func (h *host) imageDevice(id int64) string { return fmt.Sprintf("cim-%s-image-%d", poolName(h.T), id) }

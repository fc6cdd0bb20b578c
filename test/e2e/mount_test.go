package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"imagemanager.internal/internal/store"
	tarballs "imagemanager.internal/test/images"
)

// A person mounts an image, looks into it, and unmounts it again. What is in use is
// named, and what fails leaves nothing behind.
func TestSnapshotMounted(t *testing.T) {
	h := newHost(t)
	h.put("images/a.tar", tarballs.RootFS("hello", 3))
	h.Start()
	img := h.WaitActive("images/a.tar")
	dir := filepath.Join(h.dir(), "with blanks", "a")
	h.expectFailure([]string{"snapshot", "a.tar", "--mount", dir}, "no such file or directory")
	h.Check(os.Mkdir(filepath.Dir(dir), 0o755))
	h.expectFailure([]string{"snapshot", "a.tar", "--mount", h.dir()}, "is not empty")
	if n := len(h.snapshots(img.ID)); n != 1 {
		t.Errorf("failed commands left %d snapshots, want the first one", n)
	}

	h.expectOutput("read-only, nosuid, nodev", "snapshot", "a.tar", "--mount", dir)
	sn := h.snapshots(img.ID)[1]
	h.expectFile(filepath.Join(dir, "rootfs/etc/hello"), "hello")
	if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
		t.Errorf("write: %v, want EROFS", err)
	}
	h.expectFailure([]string{"rm", sn.Path}, "`umount "+dir+"` ends that")
	h.expectFailure([]string{"snapshot", sn.Path, "--mount", filepath.Join(h.dir(), "b"), "--writable"}, "in use")
	h.whileInside(dir, func(pid string) { h.expectFailure([]string{"umount", dir}, "process "+pid+" (sleep)") })
	h.expectOutput(dir+" unmounted", "umount", dir)
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory that was made is there: %v", err)
	}
	if out, code := h.Try("umount", dir); code != 5 {
		t.Errorf("nothing to unmount: exit code %d: %s", code, out)
	}
	h.mountWritable(sn)
	h.Stop()
	h.Look()
}

// mountWritable mounts a snapshot to write to it, finds it written later, and removes it.
func (h *host) mountWritable(sn store.Snapshot) {
	h.T.Helper()
	dir, name := h.T.TempDir(), fmt.Sprintf("snapshot:%d", sn.Device)
	h.expectOutput(`"mounted_at": "`+dir+`"`, "snapshot", name, "--mount", dir, "--writable", "--json")
	h.Check(os.WriteFile(filepath.Join(dir, "written"), []byte("kept"), 0o600))
	h.expectOutput(dir+" unmounted", "umount", name)
	h.Consumer("snapshot", sn.Path, "--mount", dir)
	h.expectFile(filepath.Join(dir, "written"), "kept")
	h.expectOutput("removed, devices", "umount", "--rm", dir)
	if _, err := os.Stat(dir); err != nil {
		h.T.Errorf("the directory was not made by the command: %v", err)
	}
	if left := h.snapshots(sn.Image); len(left) != 1 {
		h.T.Errorf("%d snapshots, want the first one", len(left))
	}
}

func (h *host) expectFile(path, want string) {
	h.T.Helper()
	text, err := os.ReadFile(path)
	if err != nil || strings.TrimSpace(string(text)) != want {
		h.T.Errorf("%s: %q, %v; want %q", path, text, err, want)
	}
}

// whileInside calls do while a process has its directory there.
func (h *host) whileInside(dir string, do func(pid string)) {
	h.T.Helper()
	inside := exec.CommandContext(h.T.Context(), "sleep", "infinity")
	inside.Dir = dir
	h.Check(inside.Start())
	do(fmt.Sprint(inside.Process.Pid))
	h.Check(inside.Process.Kill())
	_ = inside.Wait() // it was killed
}

package e2e

import (
	"fmt"
	"strings"
	"testing"

	tarballs "imagemanager.internal/test/images"
)

// Whoever waits for an image gets its snapshot, or the reason and an exit code; whoever
// retries one that was removed or refused gets it made, or judged, again.
func TestSubmitAndRetryWait(t *testing.T) {
	h := newHost(t)
	h.Start()
	h.WaitRunning()
	h.put("images/a.tar", tarballs.RootFS("hello", 3))
	out, code := h.Try("submit", "--wait", "images/a.tar")
	path, progress, _ := strings.Cut(out, "\n")
	if code != 0 || !strings.Contains(progress, "unpack") || h.readHello(path) != "hello" {
		t.Errorf("exit code %d: %s", code, out)
	}
	a := h.WaitActive("images/a.tar")
	h.Consumer("rm", "--force", "a.tar")
	out, code = h.Try("retry", "--wait", fmt.Sprint(a.ID))
	if again, _, _ := strings.Cut(out, "\n"); code != 0 || h.readHello(again) != "hello" {
		t.Errorf("removed: exit code %d: %s", code, out)
	}
	for key, c := range map[string]struct {
		entry tarballs.Entry
		code  int
		says  string
	}{
		"images/setuid.tar": {tarballs.Entry{Name: "usr/su", Mode: 0o4755, Body: "x"}, 8, "IMAGE_POLICY=distro"},
		"images/attack.tar": {tarballs.Entry{Name: "../etc/passwd", Mode: 0o644, Body: "x"}, 9, "attack"},
	} {
		h.put(key, tarballs.RootFS("x", 1, c.entry))
		for _, command := range []string{"submit", "retry"} {
			if out, code := h.Try(command, key, "--wait"); code != c.code || !strings.Contains(out, c.says) {
				t.Errorf("%s %s: exit code %d: %s", command, key, code, out)
			}
		}
	}
	h.Stop()
	h.Look()
}

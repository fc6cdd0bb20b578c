package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// One archive of each tool and shape, as TestArchivesOfTools has left them, becomes an
// active snapshot under distro. Its tree is the one that was compared with GNU tar's or
// umoci's there.
func TestArchivesOfToolsBecomeSnapshots(t *testing.T) {
	dir := os.Getenv("CIM_WRITERS")
	if dir == "" {
		t.Skip("CIM_WRITERS does not name a directory with archives; `make test-images` makes it and runs this")
	}
	archives, err := filepath.Glob(filepath.Join(dir, "*.tar"))
	must(err)
	if len(archives) < 12 {
		t.Fatalf("only %d archives in %s: %s", len(archives), dir, archives)
	}
	h := newSizedHost(t, "4GiB", "IMAGE_POLICY=distro", "DEVICE_SIZE=1GiB", "LOG_LEVEL=info")
	h.Start()
	for _, path := range archives {
		h.putFile("images/"+filepath.Base(path), path)
	}
	h.WaitLonger(5*time.Minute, "the queue is empty", h.IsDrained)
	h.Stop()
	for _, path := range archives {
		img := h.WaitActive("images/" + filepath.Base(path))
		want, err := os.ReadFile(strings.TrimSuffix(path, "tar") + "digest")
		must(err)
		if img.Tree.Digest != string(want) {
			t.Errorf("%s: its tree has the digest %s, the one compared has %s", img.Key, img.Tree.Digest, want)
		}
	}
	if out := h.Consumer("verify", "--all"); strings.Count(out, "as sealed") != len(archives) {
		t.Errorf("verify: %s", out)
	}
	h.Look()
	h.checkSnapshots()
}

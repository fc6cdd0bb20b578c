package extract

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/archive/fstree"
	"imagemanager.internal/test/images"
)

const setuidSetgid, sticky = 0o6000, 0o1000

var policies = []archive.Policy{archive.Strict, archive.Distro, archive.Trusted}

// What is accepted is written as planned and read back the same, the file system is
// clean, and nothing outside has changed; on a mount without protecting flags.
func TestExtractCases(t *testing.T) {
	for _, c := range images.Cases() {
		for _, p := range policies {
			// writing holds no policy: once is enough
			if c.Outcome(string(p)) != "" || p != archive.Strict && c.Strict == "" {
				continue
			}
			t.Run(c.Group+"/"+c.Name+"/"+string(p), func(t *testing.T) {
				s := newSentinel(t)
				d := newDisk(t, 64<<20)
				root := d.mount(s.mountPoint())
				written := extractBytes(t, c.Bytes, p, root)
				check(t, unix.Syncfs(int(root.Fd())))
				compare(t, written, root)
				for _, r := range written.Records {
					if p != archive.Trusted &&
						(r.Mode&setuidSetgid != 0 || r.Type != fstree.TypeDir && r.Mode&sticky != 0) {
						t.Errorf("%q has mode %04o", r.Path(), r.Mode)
					}
				}
				check(t, root.Close())
				check(t, unix.Unmount(s.mountPoint(), 0))
				d.clean()
				s.unchanged()
				compare(t, written, d.detached(unix.MOUNT_ATTR_RDONLY))
			})
		}
	}
}

func extractBytes(t testing.TB, b []byte, p archive.Policy, root *os.File) *fstree.Inventory {
	t.Helper()
	plan, err := judgeBytes(t, b, p)
	check(t, err)
	m, err := Write(t.Context(), bytes.NewReader(b), plan, root, nil)
	check(t, err)
	if want := plan.Entries + min(len(plan.Layers), 1); len(m.Records) != want {
		t.Errorf("%d records, planned %d", len(m.Records), want)
	}
	return m
}

func compare(t testing.TB, written *fstree.Inventory, root *os.File) {
	t.Helper()
	found, err := ReadBack(t.Context(), root)
	check(t, err)
	if diff := written.Diff(found, 10); len(diff) > 0 || written.Digest() != found.Digest() {
		t.Errorf("read back differently:\n%s", strings.Join(diff, "\n"))
	}
}

package archive

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imagemanager.internal/test/images"
)

var policies = []Policy{Strict, Distro, Trusted}

// Every archive of the list ends under every policy as the list says, with everything
// said that an operator needs.
func TestVerdicts(t *testing.T) {
	for _, c := range images.Cases() {
		for _, p := range policies {
			t.Run(c.Group+"/"+c.Name+"/"+string(p), func(t *testing.T) {
				plan, err := judgeBytes(t, c.Bytes, p)
				want := c.Outcome(string(p))
				if got := outcome(t, err); got != want {
					t.Fatalf("outcome %q, want %q: %v", got, want, err)
				}
				if err != nil {
					checkRejection(t, c, p, asRejection(err))
					return
				}
				checkPaths(t, c, plan)
				if string(plan.Shape) != c.Shape || plan.Policy != p {
					t.Errorf("shape %s under %s, want %s", plan.Shape, plan.Policy, c.Shape)
				}
				if p == Distro && (plan.Adjusted != c.Adjusted || len(plan.Adjustments) != c.Adjusted) {
					t.Errorf("%d adjustments, want %d: %+v", plan.Adjusted, c.Adjusted, plan.Adjustments)
				}
			})
		}
	}
}

// checkPaths compares the finished tree with the paths that it is to have, and not.
func checkPaths(t *testing.T, c images.Case, plan *Plan) {
	t.Helper()
	has, size := map[string]bool{}, int64(0)
	m, err := manifestOf(t.Context(), plan, make([]*[32]byte, plan.tree.count), nil)
	check(t, err)
	for _, r := range m.Records {
		has[strings.TrimPrefix(r.Path(), rootfsName+"/")] = true
		if r.First == nil {
			size += r.Size
		}
	}
	if size != plan.Bytes {
		t.Errorf("%d bytes planned, the files have %d", plan.Bytes, size)
	}
	for _, want := range strings.Fields(c.Has) {
		path, absent := strings.CutPrefix(want, "!")
		if has[path] == absent {
			t.Errorf("%q is there: %t", path, has[path])
		}
	}
}

func checkRejection(t *testing.T, c images.Case, p Policy, r *Rejection) {
	t.Helper()
	text := r.Error()
	if r.Violation != c.Violation && c.Outcome(string(p)) == c.Strict {
		t.Errorf("violation %t, want %t: %s", r.Violation, c.Violation, text)
	}
	if !strings.Contains(text, c.Says) {
		t.Errorf("%q does not say %q", text, c.Says)
	}
	if strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		t.Errorf("the text has control characters: %q", text)
	}
	if len(r.Entry) > shown || len(text) > 8*shown {
		t.Errorf("a text of %d bytes", len(text))
	}
	if p == Strict && c.Distro == "" && !strings.Contains(text, "IMAGE_POLICY=distro") {
		t.Errorf("%q does not name the remedy", text)
	}
	if p != Strict && strings.Contains(text, "IMAGE_POLICY") {
		t.Errorf("%q advises what does not help", text)
	}
}

// The list has an archive for every rule; those about numbers are in TestLimits.
func TestEveryRuleHasAnArchive(t *testing.T) {
	seen := map[string]bool{
		"image_too_big": true, "file_too_big": true, "too_many_entries": true, "symlink_maze": true,
		"hardlink_limit": true, "tree_limit": true,
	}
	cases := images.Cases()
	for _, c := range cases {
		seen[c.Strict], seen[c.Distro], seen[c.Trusted] = true, true, true
	}
	for _, r := range Rules() {
		if !seen[string(r.Reason)] {
			t.Errorf("no archive breaks %s", r.Reason)
		}
	}
	for _, c := range cases {
		if _, ok := byReason[Reason(c.Strict)]; !ok && c.Strict != "" {
			t.Errorf("%s: no rule has the code %q", c.Name, c.Strict)
		}
	}
	t.Logf("%d rules, %d archives", len(Rules()), len(cases))
}

// What is accepted is written as planned and read back the same, the file system is
// clean, and nothing outside has changed; on a mount without protecting flags.
func TestExtractCases(t *testing.T) {
	for _, c := range images.Cases() {
		for _, p := range policies {
			if c.Outcome(string(p)) != "" || p != Strict && c.Strict == "" { // writing holds no policy: once is enough
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
					if p != Trusted && (r.Mode&(setuid|setgid) != 0 || r.Type != TypeDir && r.Mode&sticky != 0) {
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

func extractBytes(t testing.TB, b []byte, p Policy, root *os.File) *Manifest {
	t.Helper()
	plan, err := judgeBytes(t, b, p)
	check(t, err)
	m, err := Extract(t.Context(), bytes.NewReader(b), plan, root, nil)
	check(t, err)
	if want := plan.Entries + min(plan.Layers, 1); len(m.Records) != want {
		t.Errorf("%d records, planned %d", len(m.Records), want)
	}
	return m
}

func compare(t testing.TB, written *Manifest, root *os.File) {
	t.Helper()
	found, err := ReadManifest(t.Context(), root)
	check(t, err)
	if diff := written.Diff(found, 10); len(diff) > 0 || written.Digest() != found.Digest() {
		t.Errorf("read back differently:\n%s", strings.Join(diff, "\n"))
	}
}

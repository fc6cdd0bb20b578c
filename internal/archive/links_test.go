package archive

import (
	"strings"
	"testing"

	"imagemanager.internal/internal/archive/fstree"
	"imagemanager.internal/test/images"
)

// A link that climbs above the root, or is absolute, becomes the relative one that leads
// where it led in a chroot.
func TestRewrittenLinks(t *testing.T) {
	for _, c := range []struct{ name, target, want string }{
		{"usr/lib/jvm/cacerts", strings.Repeat("../", 10) + "etc/pki/cacerts", "../../../etc/pki/cacerts"},
		{"usr/lib/l", "../../../usr/lib/x/", "x/"},
		{"l", "..", "."},
		{"etc/l", "../../..", ".."},
		{"etc/l", "../..//./../etc/hello", "hello"},
		{"etc/l", "none/../../../x", "../x"},
		{"etc/l", "../../none/../x/..", "../none/../x/.."},
		{"etc/l", "../../a/../../b", "../b"}, // climbs twice
		{"l", "bin/../../../x", "x"},         // bin is usr/bin
		{"usr/share/l", "/usr/../etc/hello", "../../etc/hello"},
		{"usr/share/l", "/bin/../x", "../../bin/../x"}, // bin/.. is usr
		{"x", "/../etc", "etc"},
		{"etc/l", "/", ".."},
	} {
		b := images.Tar(images.Root(images.Entry{Name: c.name, Link: c.target})...)
		for _, p := range []Policy{Distro, Trusted} {
			plan, err := judgeBytes(t, b, p)
			check(t, err)
			want := c.want
			if p == Trusted && strings.HasPrefix(c.target, "/") && !strings.HasPrefix(c.target, "/..") {
				want = c.target // kept
			}
			if got := linkOf(t, plan, c.name); got != want {
				t.Errorf("%s: %s -> %s became %s, want %s", p, c.name, c.target, got, want)
			}
		}
	}
}

// linkOf returns a symbolic link's target in the finished tree.
func linkOf(t *testing.T, plan *Plan, name string) string {
	t.Helper()
	for _, r := range records(t, plan) {
		if r.Type == fstree.TypeSymlink && r.Path() == "rootfs/"+name {
			return r.Target
		}
	}
	t.Fatalf("no link %s", name)
	return ""
}

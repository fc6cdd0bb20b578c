package extract

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/test/images"
)

// Whatever is changed behind our back is found by the digest and named by Diff.
func TestTampering(t *testing.T) {
	needRoot(t)
	b := images.Tar(images.Root(images.Entry{Name: "etc/h", Type: '1', Link: "etc/hello"},
		images.Entry{Name: "var/x", Body: "xyz"})...)
	for _, c := range []struct {
		name, says string
		change     func(dir string) error
	}{
		{"content", `"rootfs/var/x": sha256`, func(d string) error { return overwrite(d+"/var/x", "xyZ") }},
		{"size", `"rootfs/var/x": 2 bytes`, func(d string) error { return os.Truncate(d+"/var/x", 2) }},
		{"mode", `"rootfs/var/x": mode 4755`, func(d string) error { return unix.Chmod(d+"/var/x", 0o4755) }},
		{"owner", `"rootfs/var/x": owner 5:6`, func(d string) error { return os.Lchown(d+"/var/x", 5, 6) }},
		{
			"time", `"rootfs/var": modified at 1970-01-01T00:00:01`,
			func(d string) error { return os.Chtimes(d+"/var", time.Time{}, time.Unix(1, 5)) },
		},
		{"link", `"rootfs/bin": target "sbin"`, func(d string) error { return relink(d+"/bin", "sbin") }},
		{
			"attribute", `"rootfs/etc": other extended attributes`,
			func(d string) error { return unix.Setxattr(d+"/etc", "user.x", []byte("y"), 0) },
		},
		{
			"new file", `"rootfs/etc/new" should not be there`,
			func(d string) error { return os.WriteFile(d+"/etc/new", nil, 0o600) },
		},
		{
			"device", `"rootfs/etc/null" should not be there`,
			func(d string) error { return unix.Mknod(d+"/etc/null", unix.S_IFCHR, 0x103) },
		},
		{
			"pipe, which is not opened", `"rootfs/etc/pipe" should not be there`,
			func(d string) error { return unix.Mkfifo(d+"/etc/pipe", 0o600) },
		},
		{
			"beside", `"extra" should not be there`,
			func(d string) error { return os.Mkdir(filepath.Dir(d)+"/extra", 0o700) },
		},
		{"missing", `"rootfs/usr/bin/tool" is missing`, func(d string) error { return os.Remove(d + "/usr/bin/tool") }},
		{"type", `"rootfs/var/x": type`, func(d string) error { return relink(d+"/var/x", "y") }},
		{
			"hard link torn apart", `"rootfs/etc/hello": hard links differ`,
			func(d string) error { return copyOver(d+"/etc/h", d+"/etc/hello") },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			root, err := os.Open(dir)
			check(t, err)
			defer root.Close()
			written := extractBytes(t, b, archive.Strict, root)
			compare(t, written, root)
			check(t, c.change(filepath.Join(dir, archive.RootName)))
			found, err := ReadBack(t.Context(), root)
			check(t, err)
			if found.Digest() == written.Digest() {
				t.Error("the digest is the same")
			}
			diff := written.Diff(found, 10)
			if !slices.ContainsFunc(diff, func(l string) bool { return strings.Contains(l, c.says) }) {
				t.Errorf("%q does not say %q", diff, c.says)
			}
			if one := written.Diff(found, 1); len(one) != 1 || one[0] != diff[0] {
				t.Errorf("at most one: %q", one)
			}
		})
	}
}

// overwrite changes a file in place and leaves its times as they were.
func overwrite(path, text string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Chtimes(path, time.Time{}, info.ModTime())
}

func relink(path, target string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return os.Symlink(target, path)
}

// copyOver replaces a name of a file by a copy with the same attributes.
func copyOver(path, from string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	dir, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	if err := os.WriteFile(path, data, info.Mode()); err != nil {
		return err
	}
	return errors.Join(os.Chtimes(path, time.Time{}, info.ModTime()),
		os.Chtimes(filepath.Dir(path), time.Time{}, dir.ModTime()))
}

// Two extractions of one archive have one digest, an empty lost+found does not count, and
// a filled one does.
func TestDigest(t *testing.T) {
	b := images.Tar(images.Root()...)
	d := newDisk(t, 64<<20)
	first := extractBytes(t, b, archive.Strict, d.detached(0))
	dir := t.TempDir()
	root := newDisk(t, 64<<20).mount(dir)
	second := extractBytes(t, b, archive.Strict, root)
	if first.Digest() != second.Digest() || !strings.HasPrefix(first.Digest(), "sha256:") || len(first.Digest()) != 71 {
		t.Errorf("digests %s and %s", first.Digest(), second.Digest())
	}
	compare(t, first, root)
	check(t, os.WriteFile(dir+"/lost+found/#12", nil, 0o600))
	found, err := ReadBack(t.Context(), root)
	check(t, err)
	if found.Digest() == first.Digest() {
		t.Error("what a file system check found does not count")
	}
}

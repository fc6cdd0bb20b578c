package archive_test

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/archive/extract"
	"imagemanager.internal/internal/archive/fstree"
	"imagemanager.internal/test/images"
)

// seeds are the smaller archives of some groups.
func seeds(f *testing.F, groups ...string) {
	f.Helper()
	for _, c := range images.Cases() {
		for _, g := range groups {
			if c.Group == g && len(c.Bytes) < 32<<10 {
				f.Add(c.Bytes)
			}
		}
	}
}

// repair corrects the checksums of what looks like headers, so that fuzzing gets beyond
// them.
func repair(b []byte) []byte {
	b = bytes.Clone(b)
	for off := 0; off+512 <= len(b); off += 512 {
		if block := b[off : off+512]; bytes.HasPrefix(block[257:], []byte("ustar")) {
			images.Checksum(block)
		}
	}
	return b
}

// safe checks what must hold for every input: an outcome by a rule, and a tree that is
// written as planned and stays inside of its root by every path through it.
func safe(t *testing.T, b []byte, p archive.Policy) {
	t.Helper()
	opts := archive.Options{Policy: p, Layout: []string{}} // nearly no input is a root file system
	plan, err := archive.Check(t.Context(), bytes.NewReader(b), int64(len(b)), opts)
	if err != nil {
		var r *archive.Rejection
		if !errors.As(err, &r) {
			t.Fatalf("an error that is not a rejection: %v", err)
		}
		if !slices.ContainsFunc(archive.Rules(), func(rule archive.Rule) bool { return rule.Reason == r.Reason }) {
			t.Fatalf("no rule for %s", r.Reason)
		}
		return
	}
	if os.Geteuid() != 0 || plan.Bytes > 1<<20 || plan.Entries > 500 {
		return
	}
	root, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	written, err := extract.Write(t.Context(), bytes.NewReader(b), plan, root, nil)
	if err != nil {
		t.Fatalf("accepted and not written: %v", err)
	}
	found, err := extract.ReadBack(t.Context(), root)
	if err != nil || written.Digest() != found.Digest() {
		t.Fatalf("read back differently: %v %q", err, written.Diff(found, 10))
	}
	contained(t, written)
}

// contained follows every link with a walker of its own, simple and slow, with rootfs as
// the root.
func contained(t *testing.T, m *fstree.Inventory) {
	t.Helper()
	byPath := map[string]*fstree.Record{}
	for _, r := range m.Records {
		byPath[r.Path()] = r
		if strings.Contains("/"+r.Path()+"/", "/../") {
			t.Errorf("%q", r.Path())
		}
	}
	for _, r := range m.Records {
		if r.Type != fstree.TypeSymlink {
			continue
		}
		at, todo := strings.Split(r.Parent.Path(), "/"), strings.Split(r.Target, "/")
		for steps := 0; len(todo) > 0 && steps < 2000; steps++ {
			part := todo[0]
			todo = todo[1:]
			switch part {
			case "", ".":
				continue
			case "..":
				at = at[:len(at)-1]
			default:
				at = append(at[:len(at):len(at)], part)
			}
			if len(at) == 0 {
				t.Fatalf("%q leads out by %q", r.Path(), r.Target)
			}
			next := byPath[strings.Join(at, "/")]
			if next != nil && next.Type == fstree.TypeSymlink && part != ".." && part != "." {
				at = at[:len(at)-1]
				if strings.HasPrefix(next.Target, "/") {
					at = at[:1]
				}
				todo = append(strings.Split(next.Target, "/"), todo...)
			}
		}
	}
}

// FuzzTree: archives without layers.
func FuzzTree(f *testing.F) {
	seeds(f, "good", "names", "symlinks", "hardlinks", "modes", "types", "xattrs")
	f.Fuzz(func(t *testing.T, b []byte) { safe(t, repair(b), archive.Distro) })
}

// FuzzShape: what the archive is, by magic and members.
func FuzzShape(f *testing.F) {
	seeds(f, "formats", "shape", "docker", "oci")
	f.Fuzz(func(t *testing.T, b []byte) { safe(t, repair(b), archive.Strict) })
}

// FuzzLayers: two layers over a small root file system. Their digests are right, or the
// fuzzer would never get to the merging.
func FuzzLayers(f *testing.F) {
	f.Add(images.Tar(images.Entry{Name: "etc/.wh.hello"}), images.Tar(images.Entry{Name: "etc/hello/", Mode: 0o700}))
	f.Add(images.Tar(images.Entry{Name: "usr/.wh..wh..opq"}), images.Tar(images.Entry{Name: "l", Link: "bin/.."}))
	f.Add(images.Tar(images.Entry{Name: "h", Type: '1', Link: "etc/hello"}),
		images.Tar(images.Entry{Name: "etc", Link: "usr"}))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		layers := [][]byte{images.Tar(images.Root()...), repair(first), repair(second)}
		safe(t, images.Tar(images.Image{Layers: layers}.OCI()...), archive.Distro)
	})
}

package archive

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

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

// safe checks what must hold for every input: a verdict, and a tree that is inside of its
// root by every path through it.
func safe(t *testing.T, b []byte, p Policy) {
	t.Helper()
	plan, err := judgeAnyTree(t, b, p)
	if err != nil {
		var r *Rejection
		if !errors.As(err, &r) {
			t.Fatalf("an error that is no rejection: %v", err)
		}
		if _, known := byReason[r.Reason]; !known {
			t.Fatalf("no rule for %s", r.Reason)
		}
		return
	}
	root := openTemp(t)
	if os.Geteuid() != 0 || plan.Bytes > 1<<20 || plan.Entries > 500 {
		return
	}
	written, err := Extract(t.Context(), bytes.NewReader(b), plan, root, nil)
	if err != nil {
		t.Fatalf("accepted and not written: %v", err)
	}
	compare(t, written, root)
	contained(t, written)
}

func openTemp(t *testing.T) *os.File {
	t.Helper()
	root, err := os.Open(t.TempDir())
	check(t, err)
	t.Cleanup(func() { root.Close() })
	return root
}

// contained follows every link with a walker of its own, simple and slow, with rootfs as
// the root.
func contained(t *testing.T, m *Manifest) {
	t.Helper()
	byPath := map[string]*Record{}
	for _, r := range m.Records {
		byPath[r.Path()] = r
		if strings.Contains("/"+r.Path()+"/", "/../") {
			t.Errorf("%q", r.Path())
		}
	}
	for _, r := range m.Records {
		if r.Type != TypeSymlink {
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
			if next != nil && next.Type == TypeSymlink && part != ".." && part != "." {
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
	f.Fuzz(func(t *testing.T, b []byte) { safe(t, repair(b), Distro) })
}

// FuzzShape: what the archive is, by magic and members.
func FuzzShape(f *testing.F) {
	seeds(f, "formats", "shape", "docker", "oci")
	f.Fuzz(func(t *testing.T, b []byte) { safe(t, repair(b), Strict) })
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
		safe(t, images.Tar(images.Image{Layers: layers}.OCI()...), Distro)
	})
}

// FuzzDocument: JSON of strangers.
func FuzzDocument(f *testing.F) {
	f.Add([]byte(`[{"Config":"x","Layers":["a","b"],"n":1.5e3,"t":true,"z":null}]`))
	f.Add([]byte(`{"a":{"a":{"a":[[[]]]}}} `))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := parseDocument(t.Context(), b); err != nil && !errors.Is(err, errDocument) {
			t.Errorf("%v", err)
		}
	})
}

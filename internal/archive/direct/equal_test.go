package direct

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/archive/extract"
	"imagemanager.internal/internal/devmapper/ext4"
	"imagemanager.internal/test/images"
)

// enough is a floor for the trees that are compared: fewer, and archives got lost.
const enough = 350

// Every archive of the tests that is accepted, under every policy, becomes the same tree
// by both engines: what the kernel reads has the same digest, and what the digest leaves
// aside is the same.
func TestSameTreeAsMounted(t *testing.T) {
	p := newPair(t, 64<<20)
	for _, c := range images.Cases() {
		p.compare(c.Group+"/"+c.Name, c.Bytes, nil)
	}
	corpus, err := images.Corpus()
	check(t, err)
	for _, c := range corpus {
		p.compare(c.Name, c.Bytes, []string{})
	}
	for name, b := range seeds(t) {
		p.compare(name, b, []string{})
	}
	t.Logf("%d trees compared, of %d archives; %d archives were refused", p.trees, p.archives, p.refused)
	if p.trees < enough {
		t.Errorf("%d trees compared, want %d", p.trees, enough)
	}
}

// pair is a disk for the direct engine, new for each tree, and a mounted one with a
// directory for each tree of the other engine: a mount for each would take most of the
// time.
type pair struct {
	t                        *testing.T
	direct                   *disk
	mounted                  string
	trees, archives, refused int
}

func newPair(t *testing.T, size int64) *pair {
	p := &pair{t: t, direct: newDisk(t, size), mounted: t.TempDir()}
	other := newDisk(t, 16*size)
	check(t, unix.Mount(other.path, p.mounted, "ext4", unix.MS_NOATIME, ""))
	t.Cleanup(func() { check(t, unix.Unmount(p.mounted, 0)) })
	return p
}

// compare writes the tree of an archive by both engines, under each policy that accepts
// it. Policies with the same tree count once.
func (p *pair) compare(name string, b []byte, layout []string) {
	p.t.Helper()
	done := map[string]bool{}
	for _, policy := range []archive.Policy{archive.Strict, archive.Distro, archive.Trusted} {
		plan, err := archive.Check(p.t.Context(), bytes.NewReader(b), int64(len(b)),
			archive.Options{Policy: policy, Layout: layout})
		var refused *archive.Rejection
		switch {
		case errors.As(err, &refused):
			continue
		case err != nil:
			p.t.Fatalf("%s: %v", name, err)
		}
		if key := planDigest(p.t, plan); !done[key] {
			done[key] = true
			p.compareTree(fmt.Sprintf("%s under %s", name, policy), b, plan)
		}
	}
	p.archives++
	if len(done) == 0 {
		p.refused++
	}
}

// planDigest identifies the tree of a plan.
func planDigest(t testing.TB, plan *archive.Plan) string {
	t.Helper()
	sums := make([]*[32]byte, plan.Tree.Len())
	for i := range sums {
		sums[i] = new([32]byte)
	}
	v, err := plan.Inventory(t.Context(), sums)
	check(t, err)
	return v.Digest()
}

func (p *pair) compareTree(name string, b []byte, plan *archive.Plan) {
	p.t.Helper()
	if plan.DeviceBytes() > p.direct.size {
		p.t.Fatalf("%s needs %d MiB", name, plan.DeviceBytes()>>20)
	}
	p.direct.format()
	written, err := p.direct.write(bytes.NewReader(b), plan)
	if err != nil {
		p.t.Errorf("%s: %v", name, err)
		return
	}
	p.direct.clean()
	want := p.writeMounted(b, plan)
	mustLookLike(p.t, name, p.direct.look(), want)
	mustBe(p.t, name+", as returned", written, want.Inventory)
	p.trees++
}

// writeMounted writes a plan with the mounted engine into a new directory, and reads it.
func (p *pair) writeMounted(b []byte, plan *archive.Plan) seen {
	p.t.Helper()
	dir := filepath.Join(p.mounted, strconv.Itoa(p.trees))
	check(p.t, os.Mkdir(dir, 0o755))
	root, err := os.Open(dir)
	check(p.t, err)
	defer root.Close()
	_, err = extract.Write(p.t.Context(), bytes.NewReader(b), plan, root, nil)
	check(p.t, err)
	found, err := extract.ReadBack(p.t.Context(), root)
	check(p.t, err)
	return seen{found, beside(p.t, root)}
}

// writeMounted writes a plan with the mounted engine to a new disk, and reads it.
func (d *disk) writeMounted(src io.ReaderAt, plan *archive.Plan) seen {
	d.t.Helper()
	m, err := ext4.MountDetached(d.path, ext4.MountBuild)
	check(d.t, err)
	_, err = extract.Write(d.t.Context(), src, plan, m.Root(), nil)
	check(d.t, errors.Join(err, extract.WriteSealRecord(m.Root(), record), m.Sync(), m.Close()))
	return d.look()
}

// mustLookLike compares what the kernel says of two disks.
func mustLookLike(t testing.TB, what string, got, want seen) {
	t.Helper()
	mustBe(t, what, got.Inventory, want.Inventory)
	for name := range want.beside {
		if got.beside[name] != want.beside[name] {
			t.Errorf("%s: %q: %s, want %s", what, name, got.beside[name], want.beside[name])
		}
	}
	if len(got.beside) != len(want.beside) {
		t.Errorf("%s: %d names, want %d", what, len(got.beside), len(want.beside))
	}
}

// e2fsck doubts the same times of both engines.
func TestDoubtfulTimes(t *testing.T) {
	e := file("etc/f", "")
	e.ModTime = time.Unix(11_000_000_000, 0)
	b := pack(t, []entry{dir("etc"), dir("usr"), dir("var"), e})
	plan := judge(t, b, archive.Options{})
	d := newDisk(t, 64<<20)
	_, err := d.write(bytes.NewReader(b), plan)
	check(t, err)
	m := newDisk(t, 64<<20)
	mustLookLike(t, "a time of 2318", d.look(), m.writeMounted(bytes.NewReader(b), plan))
	for _, disk := range []*disk{d, m} {
		if out := command(t, "e2fsck", "-fn", disk.path); len(doubtfulTimes.FindAllString(out, -1)) != 1 {
			t.Error(out)
		}
	}
}

// seeds are what the fuzzers of package archive have found.
func seeds(t testing.TB) map[string][]byte {
	t.Helper()
	found := map[string][]byte{}
	files, err := filepath.Glob("../testdata/fuzz/*/*")
	check(t, err)
	for _, f := range files {
		text, err := os.ReadFile(f)
		check(t, err)
		var parts [][]byte
		for line := range strings.Lines(string(text)) {
			if quoted, ok := strings.CutPrefix(strings.TrimSpace(line), "[]byte("); ok {
				s, err := strconv.Unquote(strings.TrimSuffix(quoted, ")"))
				check(t, err)
				parts = append(parts, repair([]byte(s)))
			}
		}
		name := strings.TrimPrefix(f, "../testdata/fuzz/")
		switch len(parts) {
		case 1:
			found[name] = parts[0]
		case 2:
			layers := [][]byte{images.Tar(images.Root()...), parts[0], parts[1]}
			found[name] = images.Tar(images.Image{Layers: layers}.OCI()...)
		}
	}
	if len(found) < 200 {
		t.Errorf("%d seeds in testdata/fuzz", len(found))
	}
	return found
}

// repair corrects the checksums of what looks like headers, as the fuzzers do.
func repair(b []byte) []byte {
	for off := 0; off+512 <= len(b); off += 512 {
		if block := b[off : off+512]; bytes.HasPrefix(block[257:], []byte("ustar")) {
			images.Checksum(block)
		}
	}
	return b
}

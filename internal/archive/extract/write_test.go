package extract

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/archive/fstree"
	"imagemanager.internal/test/images"
)

// For accepted archives that need no adjustment, GNU tar writes the same tree: names,
// types, modes, owners, times, links, contents.
func TestSameTreeAsGNUTar(t *testing.T) {
	needRoot(t)
	root := newDisk(t, 128<<20).mount(t.TempDir())
	for _, c := range images.Cases() {
		if c.Strict != "" || c.Shape != "flat" {
			continue
		}
		t.Run(c.Group+"/"+c.Name, func(t *testing.T) {
			defer func() { check(t, os.RemoveAll(filepath.Join(root.Name(), archive.RootName))) }()
			want := extractBytes(t, c.Bytes, archive.Strict, root)
			check(t, os.RemoveAll(filepath.Join(root.Name(), archive.RootName)))
			dir := filepath.Join(root.Name(), archive.RootName)
			check(t, os.Mkdir(dir, 0o755))
			cmd := exec.CommandContext(t.Context(), "tar", "--extract", "--preserve-permissions", "--numeric-owner",
				"--same-owner", "--xattrs", "--xattrs-include=user.*",
				"--delay-directory-restore", "--directory", dir)
			cmd.Stdin = bytes.NewReader(c.Bytes)
			out, err := cmd.CombinedOutput()
			if err != nil && !bytes.Contains(out, []byte("invalid mtime=\n")) { // it complains and goes on
				t.Fatalf("tar: %v\n%s", err, out)
			}
			got, err := ReadBack(t.Context(), root)
			check(t, err)
			ignoreImplied(want, got)
			if diff := want.Diff(got, 5); len(diff) > 0 {
				t.Errorf("GNU tar's tree differs: %s", strings.Join(diff, "\n"))
			}
		})
	}
}

// ignoreImplied takes times out of directories that no entry describes: GNU tar leaves
// them as they come.
func ignoreImplied(want, got *fstree.Inventory) {
	for i, r := range want.Records {
		if r.Type == fstree.TypeDir && r.Sec == 0 && i < len(got.Records) && got.Records[i].Path() == r.Path() {
			got.Records[i].Sec, got.Records[i].Nsec = 0, 0
		}
	}
}

// Links that wait in the destination are not followed, and nothing that is there is
// touched.
func TestHostileDestination(t *testing.T) {
	needRoot(t)
	b := images.Tar(images.Image{Layers: [][]byte{images.Tar(images.Root()...)}}.OCI()...)
	for _, c := range []struct{ name, at string }{{"tree", archive.RootName}, {"configuration", archive.ConfigName}} {
		t.Run(c.name, func(t *testing.T) {
			s := newSentinel(t)
			dir := t.TempDir()
			check(t, os.Symlink(s.dir, filepath.Join(dir, c.at)))
			root, err := os.Open(dir)
			check(t, err)
			defer root.Close()
			plan, err := judgeBytes(t, b, archive.Strict)
			check(t, err)
			if _, err := Write(t.Context(), bytes.NewReader(b), plan, root, nil); err == nil {
				t.Error("wrote through a link")
			}
			s.unchanged()
		})
	}
}

// While a tree is written, another process keeps replacing its directories by links to
// the outside. The extraction may fail; nothing lands outside.
func TestSwappedDirectories(t *testing.T) {
	needRoot(t)
	s := newSentinel(t)
	dir := t.TempDir()
	root, err := os.Open(dir)
	check(t, err)
	defer root.Close()
	var list []images.Entry
	for i := range 2000 {
		list = append(list, images.Entry{Name: fmt.Sprintf("srv/%d/%d", i%7, i), Body: "x"})
	}
	b := images.Tar(images.Root(list...)...)
	var stop atomic.Bool
	done := make(chan struct{})
	var swaps atomic.Int64
	go func() {
		defer close(done)
		for n := 0; !stop.Load(); n++ {
			victim := filepath.Join(dir, archive.RootName, "srv", fmt.Sprint(n%7))
			if os.Rename(victim, fmt.Sprintf("%s.%d", victim, n)) == nil && os.Symlink(s.dir, victim) == nil {
				swaps.Add(1)
			}
			runtime.Gosched()
		}
	}()
	plan, err := judgeBytes(t, b, archive.Strict)
	check(t, err)
	_, err = Write(t.Context(), bytes.NewReader(b), plan, root, nil)
	stop.Store(true)
	<-done
	t.Logf("%d directories swapped; the extraction ended with %v", swaps.Load(), err)
	s.unchanged()
}

// A tree that only a hole in the first half could produce is stopped by the second: it
// follows no link and makes no device.
func TestWriterAlone(t *testing.T) {
	needRoot(t)
	s := newSentinel(t)
	root, err := os.Open(t.TempDir())
	check(t, err)
	defer root.Close()
	for name, plant := range map[string]func(*fstree.Tree){
		"name with a slash": func(t *fstree.Tree) {
			t.Insert(fstree.Root, []byte("../../../../../../.."+s.dir+"/x"), fstree.KindFile)
		},
		"name of the parent": func(t *fstree.Tree) {
			t.Insert(t.Insert(fstree.Root, []byte(".."), fstree.KindDir), []byte("x"),
				fstree.KindFile)
		},
		"below a link": func(t *fstree.Tree) {
			link := t.Insert(fstree.Root, []byte("l"), fstree.KindSymlink)
			t.At(link).Link = s.dir
			d := t.Insert(fstree.Root, []byte("l"), fstree.KindDir)
			t.Insert(d, []byte("x"), fstree.KindFile)
		},
		"device": func(t *fstree.Tree) { t.Insert(fstree.Root, []byte("null"), fstree.KindDevice) },
		"fifo":   func(t *fstree.Tree) { t.Insert(fstree.Root, []byte("pipe"), fstree.KindFIFO) },
	} {
		tr := fstree.New()
		plant(tr)
		if _, err := Write(t.Context(), bytes.NewReader(nil), &archive.Plan{Tree: tr}, root, nil); err == nil {
			t.Errorf("%s: written", name)
		}
		check(t, os.RemoveAll(filepath.Join(root.Name(), archive.RootName)))
	}
	s.unchanged()
}

// A device of DeviceBytes holds the tree, for trees of different kinds; PoolBytes is
// about what is written.
func TestDeviceBytes(t *testing.T) {
	needRoot(t)
	long := strings.Repeat("n", 90)
	for name, list := range map[string][]images.Entry{
		"small":            nil,
		"many empty":       images.Numbered(20_000, "usr/%05d"),
		"many tiny":        withBodies(images.Numbered(5000, "usr/%05d"), 1),
		"long names":       images.Numbered(10_000, "usr/"+long+"%05d"),
		"many dirs":        images.Numbered(4000, "usr/%05d/x"),
		"a few large":      withBodies(images.Numbered(12, "usr/%05d"), 3<<20+1),
		"written directly": withBodies(images.Numbered(12, "usr/%05d"), directFrom+1),
		"one large":        withBodies(images.Numbered(1, "usr/%05d"), 160<<20),
		"just over pages":  withBodies(images.Numbered(3000, "usr/%05d"), 4097),
	} {
		t.Run(name, func(t *testing.T) {
			b := images.Tar(images.Root(list...)...)
			plan, err := judgeBytes(t, b, archive.Strict)
			check(t, err)
			d := newDisk(t, plan.DeviceBytes())
			root := d.detached(0)
			_, err = Write(t.Context(), bytes.NewReader(b), plan, root, nil)
			check(t, err)
			var st unix.Statfs_t
			check(t, unix.Fstatfs(int(root.Fd()), &st))
			used := int64(st.Blocks-st.Bfree) * st.Bsize
			t.Logf("%d entries, %d bytes: device %d MiB, pool %d MiB; %d MiB used",
				plan.Entries, plan.Bytes, plan.DeviceBytes()>>20, plan.PoolBytes()>>20, used>>20)
		})
	}
}

func withBodies(list []images.Entry, size int) []images.Entry {
	for i := range list {
		list[i].Body = strings.Repeat("x", size)
	}
	return list
}

// Progress only grows and ends with all bytes.
func TestProgress(t *testing.T) {
	b := images.Tar(images.Root(withBodies(images.Numbered(20, "usr/%05d"), 100_000)...)...)
	plan, err := judgeBytes(t, b, archive.Strict)
	check(t, err)
	var last int64
	root := newDisk(t, 64<<20).detached(0)
	_, err = Write(t.Context(), bytes.NewReader(b), plan, root, func(done int64) {
		if done < last {
			t.Errorf("%d after %d", done, last)
		}
		last = done
	})
	check(t, err)
	if last != plan.Bytes {
		t.Errorf("ended at %d of %d", last, plan.Bytes)
	}
}

// One root file system gives one digest, whatever form it comes in; images have their
// configuration beside it.
func TestSameTreeInEveryForm(t *testing.T) {
	layers := images.Image{Layers: [][]byte{images.Tar(images.Root()...)}}
	digest := func(b []byte, shape archive.Shape) string {
		root := openTemp(t)
		m := extractBytes(t, b, archive.Strict, root)
		compare(t, m, root)
		if plan, err := judgeBytes(t, b, archive.Strict); err != nil || plan.Shape != shape {
			t.Errorf("%v, %v", plan, err)
		}
		return m.Digest()
	}
	needRoot(t)
	flat, bundle := digest(images.Tar(images.Root()...), archive.Flat),
		digest(images.Tar(images.Bundle()...), archive.Bundle)
	docker, docker25, oci := digest(images.Tar(layers.Docker()...), archive.Docker),
		digest(images.Tar(layers.Docker25()...), archive.Docker), digest(images.Tar(layers.OCI()...), archive.OCI)
	if flat != bundle || docker != docker25 || docker != oci || docker == flat {
		t.Errorf("flat %s, bundle %s, docker %s, 25 %s, oci %s", flat, bundle, docker, docker25, oci)
	}
}

package direct

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/archive/fstree"
)

// A tree with everything that a tree can have is what the kernel reads afterwards.
func TestWrite(t *testing.T) {
	d := newDisk(t, 256<<20)
	entries := []entry{
		dir("bin"), dir("etc"), dir("usr"), dir("var"), file("etc/a", "x").with("user.a", "b"), file("etc/empty", ""),
		file("etc/big", strings.Repeat("y", 5<<20+3)), symlink("l", "etc/a"),
		symlink("long", strings.Repeat("a/", 200)+"b"), hardlink("h", "etc/a"), dir("many"),
	}
	for i := range 3000 {
		entries = append(entries, file(fmt.Sprintf("many/%d-%s", i, strings.Repeat("n", i%200)), fmt.Sprint(i)))
	}
	b := pack(t, entries)
	plan := judge(t, b, archive.Options{Policy: archive.Distro})
	written, err := d.write(bytes.NewReader(b), plan)
	check(t, err)
	d.clean()
	mustBe(t, "read by the kernel", d.look().Inventory, written)
}

// Behind the end of a file its last block has zeros, and nothing of another file.
func TestNothingBehindFiles(t *testing.T) {
	list := []entry{dir("etc"), dir("usr"), dir("var"), symlink("long", strings.Repeat("a/", 200)+"b")}
	for i := range 600 {
		list = append(list, file(fmt.Sprint("var/", i), strings.Repeat("\xff", 1+i*131)))
	}
	b := pack(t, list)
	d := newDisk(t, 128<<20)
	f := d.open()
	defer f.Close()
	w, err := LayOut(t.Context(), bytes.NewReader(b), judge(t, b, archive.Options{}), f)
	check(t, err)
	defer w.Close()
	_, err = w.Write(t.Context(), Options{Seal: seal})
	check(t, err)
	looked := 0
	check(t, w.plan.Tree.Each(t.Context(), func(i fstree.ID) error {
		n, p := w.plan.Tree.At(i), &w.places[i]
		size := int(n.Size) + len(n.Link)
		if n.Kind == fstree.KindDir || p.blocks == 0 {
			return nil
		}
		last, err := w.fs.read(w.free.block(uint64(p.start+p.blocks-1)), 1)
		if behind := last[(size-1)%blockSize+1:]; err == nil && len(bytes.Trim(behind, "\x00")) > 0 {
			t.Errorf("%q: behind its %d bytes there is something", n.Name, size)
		}
		looked++
		return err
	}))
	if looked < 600 {
		t.Errorf("looked behind %d files", looked)
	}
}

// seed makes every run the same. CIM_DIRECT_SEED looks further.
func seed(t testing.TB) uint64 {
	t.Helper()
	text := os.Getenv("CIM_DIRECT_SEED")
	if text == "" {
		return 18
	}
	n, err := strconv.ParseUint(text, 10, 64)
	check(t, err)
	return n
}

// Random trees are what the kernel reads afterwards, and e2fsck finds nothing.
func TestRandomTrees(t *testing.T) {
	d := newDisk(t, 512<<20)
	random := rand.New(rand.NewPCG(seed(t), 0))
	trees := 20
	if full() {
		trees = 1000
	}
	for n := range trees {
		entries := randomTree(random)
		b := pack(t, entries)
		plan := judge(t, b, archive.Options{Policy: archive.Distro})
		d.format()
		written, err := d.write(bytes.NewReader(b), plan)
		check(t, err)
		d.clean()
		mustBe(t, fmt.Sprint("tree ", n), d.look().Inventory, written)
		if t.Failed() {
			return
		}
	}
	t.Logf("%d trees", trees)
}

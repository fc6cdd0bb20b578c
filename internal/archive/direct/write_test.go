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
	trees := 25
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

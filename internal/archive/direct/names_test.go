package direct

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/archive/fstree"
)

// become writes a tree, and expects the kernel to find every name once, e2fsck to find
// nothing, and the tree to be the one that was written.
func (d *disk) become(what string, entries []entry) seen {
	d.t.Helper()
	b := pack(d.t, slices.Concat([]entry{dir("etc"), dir("usr"), dir("var")}, entries))
	d.format()
	written, err := d.write(bytes.NewReader(b), judge(d.t, b, archive.Options{Policy: archive.Distro}))
	if err != nil {
		d.t.Fatalf("%s: %v", what, err)
	}
	d.clean()
	got := d.look()
	mustBe(d.t, what, got.Inventory, written)
	if len(got.beside) != len(written.Records) {
		d.t.Errorf("%s: %d names, want %d", what, len(got.beside), len(written.Records))
	}
	return got
}

// In a directory with an index, the kernel finds each name by its hash: names of all
// lengths, with bytes above 127, which count as negative numbers.
func TestNamesAreFound(t *testing.T) {
	d := newDisk(t, 128<<20)
	alphabets := []string{
		"abcdefghijklmnopqrstuvwxyz", "áéíóúàèìòùäëïöü", "語日本漢字中文한국어", "😀😁🚀🌍", "\u00a0\u07ff\u0800\uffff\U0010ffff~! ",
	}
	var list []entry
	for n := range 5000 {
		letters := []rune(alphabets[n%len(alphabets)])
		name := fmt.Sprint(n)
		for k := 0; len(name) < n%256-3; k++ {
			name += string(letters[(n/7+k*k)%len(letters)])
		}
		list = append(list, file("usr/"+name, ""))
	}
	d.become("names", list)
}

// colliding are ends of names of 255 bytes, "c" before and behind, that have the same
// hash on a file system of the tests.
const colliding = `afz2xplw af5vq1fv ai33q4mp aks13f1m akxwcluv amxvelny aozpcqf5 aqxd4npv avg0timt awtlugpb
awx3cjmr axhex5br axskmgu0 ayfvnydj a1srf5zg a2jjdgyu a2yhv54i a43l234m a5zrwcqp bde4md5v
beoomqmu bjzy4hdj bk5uqsr2 bleamvoj bl0y0woj bnu0gig0 bn2el04l bqjonfoh bushaxc2 bznqqizs
b4klsczk b52iyy3m cetfja1a chppyhwf cnhrfhtg cof0qr43 ctrawqkz ctwaijlp cvabepzk dajnxqim
ddj5g4ip dlar514l`

// Names with the same hash fill more than two leaves. The kernel reads on from one to the
// next.
func TestNamesWithTheSameHash(t *testing.T) {
	d := newDisk(t, 64<<20)
	hash := d.filesystem().hash
	same := []entry{}
	for end := range strings.FieldsSeq(colliding) {
		name := strings.Repeat("c", 224) + end + strings.Repeat("c", 23)
		if got := hash.of(name); got != 0x5a5a5a5a {
			t.Fatalf("hash %x of %q", got, name)
		}
		same = append(same, file("usr/"+name, end))
	}
	if len(same) < 2*15+1 {
		t.Fatalf("%d names do not fill two leaves", len(same))
	}
	for others := 0; others < 40; others += 3 {
		list := slices.Clone(same)
		for i := range others {
			list = append(list, file(fmt.Sprintf("usr/%0250d", i), ""))
		}
		d.become(fmt.Sprint(others, " other names"), list)
	}
}

// A hash that would stand for the end of a directory becomes another.
func TestHashOfTheEnd(t *testing.T) {
	d := newDisk(t, 64<<20)
	hash := d.filesystem().hash
	var list []entry
	for _, end := range []string{"aagpn44i", "ab2qoron"} {
		name := strings.Repeat("c", 224) + end + strings.Repeat("c", 23)
		if got := hash.of(name); got != 0xfffffffc {
			t.Errorf("hash %x of %q", got, name)
		}
		list = append(list, file("usr/"+name, end))
	}
	for i := range 100 {
		list = append(list, file(fmt.Sprintf("usr/%0250d", i), ""))
	}
	d.become("names", list)
}

// A directory may end anywhere in its last block.
func TestDirectoriesOfAllSizes(t *testing.T) {
	d := newDisk(t, 64<<20)
	var list []entry
	for first := range 40 { // 15 more names of 264 bytes nearly fill a block
		name := fmt.Sprintf("usr/%02d/", first)
		list = append(list, dir(name[:len(name)-1]), file(name+strings.Repeat("a", 1+4*first), ""))
		for i := range 15 {
			list = append(list, file(fmt.Sprintf("%s%0255d", name, i), ""))
		}
	}
	d.become("directories", list)
}

// Index blocks are filled to the last entry, and one more makes a level more.
func TestIndexAtItsLimits(t *testing.T) {
	d := newDisk(t, 256<<20)
	limits := []int{indexInRoot, indexInRoot + 1}
	if full() {
		limits = append(limits, indexInNode, indexInNode+1, 2*indexInNode+1)
	}
	for _, leaves := range limits {
		list := make([]entry, leaves*15)
		for i := range list {
			list[i] = file(fmt.Sprintf("usr/%0255d", i), "")
		}
		d.become(fmt.Sprint(leaves, " leaves"), list)
	}
}

// A directory with more than 64,998 subdirectories says that it has many, as the kernel
// does. A file cannot.
func TestLinksAtTheLimit(t *testing.T) {
	places := []place{{}, {ino: firstInode, links: maxLinks - 1}}
	w := &Writer{layout: &layout{fs: &filesystem{}, free: newSpace(nil), places: places}}
	for subdirs, want := range map[uint32]uint16{0: 2, 64_998: 65_000, 64_999: 1, 99_999: 1} {
		b := make([]byte, inodeSize)
		check(t, w.putNode(b, &fstree.Node{Kind: fstree.KindDir}, &place{links: subdirs}, nil))
		if got := le.Uint16(b[0x1a:]); got != want {
			t.Errorf("%d subdirectories: %d links, want %d", subdirs, got, want)
		}
	}
	check(t, w.countName(1))
	if err := w.countName(1); !errors.Is(err, unix.EMLINK) {
		t.Errorf("65,001 names of a file: %v", err)
	}
}

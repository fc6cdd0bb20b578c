package direct

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imagemanager.internal/internal/archive"
)

// fragment makes a file system with so many bad blocks that of those from one on, only
// runs of a few are free.
func (d *disk) fragment(from, run int64) {
	d.t.Helper()
	var bad strings.Builder
	for b := from; b < d.size/blockSize; b += run + 1 {
		fmt.Fprintln(&bad, b)
	}
	list := filepath.Join(d.t.TempDir(), "bad")
	check(d.t, os.WriteFile(list, []byte(bad.String()), 0o600))
	config := filepath.Join(d.t.TempDir(), "mke2fs.conf")
	check(d.t, os.WriteFile(config, []byte("[fs_types]\n\text4 = {\n\t\tinode_size = 256\n\t}\n"), 0o600))
	d.blank = nil
	d.format()
	command(d.t, "env", "MKE2FS_CONFIG="+config, "mke2fs", "-t", "ext4", "-q", "-F", "-m", "0", "-b", "4096",
		"-i", "16384", "-I", "256", "-g", "32768", "-G", "16", "-J", "size=4", "-U", fsUUID, "-l", list,
		"-E", "nodiscard,assume_storage_prezeroed=1,root_owner=0:0,hash_seed="+fsUUID,
		"-O", "none,has_journal,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,"+
			"dir_nlink,extra_isize,metadata_csum", d.path)
	d.forget()
	d.blank = d.contents()
}

// Where only short runs of blocks are free, extents of files and directories get blocks
// of their own, up to four of them.
func TestFragmentedDevice(t *testing.T) {
	for _, run := range []int64{1, 2, 7} {
		d := newDisk(t, 64<<20)
		d.fragment(3000, run)
		most := int(run) * extentsInInode * extentsInBlock * blockSize
		var list []entry
		for i := range 800 {
			list = append(list, file(fmt.Sprintf("usr/%0250d", i), "").with("user.a", strings.Repeat("a", 200)))
		}
		for extents := range 12 {
			body := strings.Repeat(string(rune('a'+extents)), extents*int(run)*blockSize+1)
			list = append(list, file(fmt.Sprintf("usr/%d", extents), body).with("user.b", strings.Repeat("b", 200)))
		}
		list = append(list, file("usr/large", strings.Repeat("l", most-2*int(run)*blockSize)), file("usr/small", "s"))
		got := d.become(fmt.Sprint("runs of ", run), list)
		if len(got.Records) < 800 {
			t.Error("the tree is not there")
		}
	}
}

// A file whose extents do not fit four blocks is for the other engine.
func TestTooManyExtents(t *testing.T) {
	d := newDisk(t, 64<<20)
	d.fragment(3000, 1)
	b := pack(t, []entry{
		dir("etc"), dir("usr"), dir("var"),
		file("usr/f", strings.Repeat("x", (3000+extentsInInode*extentsInBlock+1)*blockSize)),
	})
	d.refuses("1,361 extents", b, judge(t, b, archive.Options{}), ErrUnsupported)
}

// The extents of a file are its blocks in order, whatever was free.
func TestSpace(t *testing.T) {
	random := rand.New(rand.NewPCG(seed(t), 1))
	for range 300 {
		s, free := randomSpace(random)
		var taken []uint64
		for len(taken) < len(free) {
			n := min(random.Uint64N(50), uint64(len(free)-len(taken)))
			at, err := s.take(n)
			check(t, err)
			mustBeExtents(t, s, at, free[len(taken):][:n])
			taken = append(taken, free[len(taken):][:n]...)
		}
		if got := s.end(); len(free) > 0 && got != free[len(free)-1]+1 {
			t.Fatalf("the end is %d, want %d", got, free[len(free)-1]+1)
		}
		if err := s.reserve(1); !errors.Is(err, ErrNoRoom) {
			t.Fatalf("a block more: %v", err)
		}
		if _, err := s.take(1); !errors.Is(err, ErrNoRoom) {
			t.Fatalf("a block more: %v", err)
		}
	}
}

// randomSpace is the space of one or two groups, with long and short runs of free blocks,
// and the blocks in their order.
func randomSpace(random *rand.Rand) (*space, []uint64) {
	s := newSpace(&filesystem{blocksPerGroup: 8 * blockSize})
	var free []uint64
	block := uint64(0)
	for range 1 + random.IntN(20) {
		block += random.Uint64N(3) // or none: runs that touch
		n := 1 + random.Uint64N([]uint64{1, 5, 300}[random.IntN(3)])
		s.add(block, n)
		for range n {
			free = append(free, block)
			block++
		}
	}
	return s, free
}

func mustBeExtents(t *testing.T, s *space, at uint64, want []uint64) {
	t.Helper()
	var got []uint64
	last := extent{}
	for e := range s.extents(at, uint64(len(want))) {
		if e.logical != uint64(len(got)) || e.n == 0 || e.n > maxExtent {
			t.Fatalf("extent %+v after %d blocks", e, len(got))
		}
		if last.n > 0 && last.block+uint64(last.n) == e.block && last.n < maxExtent {
			t.Fatalf("extents %+v and %+v could be one", last, e)
		}
		for k := range uint64(e.n) {
			got = append(got, e.block+k)
			if s.block(at+e.logical+k) != e.block+k {
				t.Fatalf("block %d is elsewhere", at+e.logical+k)
			}
		}
		last = e
	}
	if !slices.Equal(got, want) {
		t.Fatalf("blocks %v, want %v", got, want)
	}
}

// Files of more than an extent's largest size, and across groups of blocks.
func TestLargeExtents(t *testing.T) {
	s := newSpace(&filesystem{blocksPerGroup: 8 * blockSize})
	s.add(10, 3*maxExtent+7)
	at, err := s.take(2*maxExtent + 100)
	check(t, err)
	var sizes []uint32
	for e := range s.extents(at, 2*maxExtent+100) {
		sizes = append(sizes, e.n)
	}
	if !slices.Equal(sizes, []uint32{maxExtent, maxExtent, 100}) {
		t.Errorf("extents of %d blocks", sizes)
	}
}

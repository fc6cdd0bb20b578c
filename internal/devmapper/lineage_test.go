package devmapper

import (
	"bytes"
	"io"
	"slices"
	"testing"
)

// family is metadata of a pool in which 4 is a snapshot of 1, the two share data block 7,
// and 5 has blocks of its own.
func family(change func(blocks [][]byte)) io.ReaderAt {
	blocks := make([][]byte, 12)
	for i := range blocks {
		blocks[i] = make([]byte, metadataBlock)
	}
	mapping := func(block uint64) []uint64 { return []uint64{block << 24} }
	blocks[5] = fullSuperblock(6, 8, 64<<10)
	blocks[6] = nodeOf(6, nodeLeaf, []uint64{1, 4, 5},
		[][]uint64{{2, 0, 1 << 32}, {2, 0, 1<<32 | 1}, {1, 0, 1<<32 | 1}})
	blocks[8] = sizedNode(8, nodeLeaf, 8, []uint64{1, 4, 5}, [][]uint64{{9}, {10}, {11}})
	blocks[9] = sizedNode(9, nodeLeaf, 8, []uint64{0, 1}, [][]uint64{mapping(6), mapping(7)})
	blocks[10] = sizedNode(10, nodeLeaf, 8, []uint64{0, 1}, [][]uint64{mapping(8), mapping(7)})
	blocks[11] = sizedNode(11, nodeLeaf, 8, []uint64{0}, [][]uint64{mapping(9)})
	if change != nil {
		change(blocks)
	}
	return bytes.NewReader(slices.Concat(blocks...))
}

func TestReadLineage(t *testing.T) {
	list, err := readLineage(family(nil), 5, 10)
	if err != nil || len(list) != 3 {
		t.Fatal(list, err)
	}
	for i, want := range []ID{0, 1, 0} {
		if a := list[i]; a.Origin != want || a.WasOrigin() != (a.ID == 1) {
			t.Errorf("%+v, want the origin %d", a, want)
		}
	}
}

// Metadata that are damaged prove nothing.
func TestReadLineageRefuses(t *testing.T) {
	for name, change := range map[string]func(b [][]byte){
		"no mappings":      func(b [][]byte) { clear(b[8]) },
		"damaged mappings": func(b [][]byte) { b[10][4000] ^= 1 },
		"a block outside": func(b [][]byte) {
			b[11] = sizedNode(11, nodeLeaf, 8, []uint64{0},
				[][]uint64{{10 << 24}})
		},
		"an id that is too big": func(b [][]byte) {
			b[8] = sizedNode(8, nodeLeaf, 8, []uint64{1 << 24},
				[][]uint64{{9}})
		},
		"details for mappings": func(b [][]byte) { b[9] = nodeOf(9, nodeLeaf, []uint64{0}, [][]uint64{{1, 2, 3}}) },
		"a tree without end": func(b [][]byte) {
			b[9] = sizedNode(9, nodeInternal, 8, []uint64{0},
				[][]uint64{{9}})
		},
	} {
		if list, err := readLineage(family(change), 5, 10); err == nil || list != nil {
			t.Errorf("%s: %+v, %v", name, list, err)
		}
	}
}

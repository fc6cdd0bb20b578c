package devmapper

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"testing"
)

// mappings are the blocks of a tree of two levels: device 0 at block 3, its block 0 at
// data block 9, block 1 at 4.
func mappings(change func(blocks [][]byte)) io.ReaderAt {
	leaf := func(at uint64, keys []uint64, values ...uint64) []byte {
		each := make([][]uint64, len(values))
		for i, v := range values {
			each[i] = []uint64{v}
		}
		b := nodeOf(at, nodeInternal, keys, each) // whose values are numbers, too
		binary.LittleEndian.PutUint32(b[4:], nodeLeaf)
		return withChecksum(b, nodeSalt)
	}
	blocks := [][]byte{
		make([]byte, metadataBlock), leaf(1, []uint64{0, 5}, 3, 4), leaf(2, []uint64{7}, 4),
		leaf(3, []uint64{0, 1}, 9<<24|5, 4<<24), leaf(4, []uint64{2}, 1),
	}
	if change != nil {
		change(blocks)
	}
	return bytes.NewReader(slices.Concat(blocks...))
}

func TestMappedBlocks(t *testing.T) {
	var got [2]uint64
	if err := mappedBlocks(mappings(nil), superblock{mappingRoot: 1}, 0, got[:]); err != nil || got != [2]uint64{9, 4} {
		t.Errorf("%v, %v", got, err)
	}
	for name, tt := range map[string]struct {
		id     ID
		root   uint64
		change func(b [][]byte)
		is     error
	}{
		"no such device":   {4, 1, nil, errNotMapped},
		"nothing mapped":   {5, 1, nil, errNotMapped},
		"before the first": {0, 2, nil, errNotMapped},
		"torn root":        {0, 1, func(b [][]byte) { b[1][3000] ^= 1 }, errMalformed},
		"torn leaf":        {0, 1, func(b [][]byte) { b[3][3000] ^= 1 }, errMalformed},
		"another's block":  {0, 1, func(b [][]byte) { copy(b[3], b[4]) }, errMalformed},
		"a blank device":   {0, 0, nil, errMalformed},
		"behind the end":   {0, 99, nil, io.EOF},
	} {
		if err := mappedBlocks(mappings(tt.change), superblock{mappingRoot: tt.root}, tt.id, got[:]); !errors.Is(err,
			tt.is) {
			t.Errorf("%s: %v, want %v", name, err, tt.is)
		}
	}
}

// Whatever the bytes of two nodes are, the look-up ends.
func FuzzMappedBlocks(f *testing.F) {
	f.Add(nodeOf(1, nodeInternal, []uint64{0}, [][]uint64{{1}}), []byte{})
	f.Fuzz(func(_ *testing.T, a, b []byte) {
		r := mappings(func(blocks [][]byte) {
			for i, bytes := range [][]byte{a, b} {
				clear(blocks[1+2*i])
				copy(blocks[1+2*i], bytes)
				withChecksum(blocks[1+2*i], nodeSalt)
			}
		})
		var got [2]uint64
		_ = mappedBlocks(r, superblock{mappingRoot: 1}, 0, got[:])
	})
}

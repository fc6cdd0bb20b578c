package devmapper

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"
	"testing"
)

// withChecksum puts the checksum on a block.
func withChecksum(block []byte, salt uint32) []byte {
	binary.LittleEndian.PutUint32(block, blockChecksum(block, salt))
	return block
}

func superblockOf(detailsRoot uint64, blockSize int64) []byte {
	return fullSuperblock(detailsRoot, 0, blockSize)
}

func fullSuperblock(detailsRoot, mappingRoot uint64, blockSize int64) []byte {
	b := make([]byte, metadataBlock)
	binary.LittleEndian.PutUint64(b[offMappingRoot:], mappingRoot)
	binary.LittleEndian.PutUint64(b[offMagic:], superblockMagic)
	binary.LittleEndian.PutUint64(b[offDetailsRoot:], detailsRoot)
	binary.LittleEndian.PutUint32(b[offDataBlockSize:], uint32(blockSize/sectorSize))
	return withChecksum(b, superblockSalt)
}

// nodeOf makes a node of the device details; a value is its 8-byte words.
func nodeOf(at uint64, flags uint32, keys []uint64, values [][]uint64) []byte {
	size := uint32(8)
	if flags == nodeLeaf {
		size = detailsSize
	}
	return sizedNode(at, flags, size, keys, values)
}

func sizedNode(at uint64, flags, size uint32, keys []uint64, values [][]uint64) []byte {
	b := make([]byte, metadataBlock)
	room := (metadataBlock - nodeHeader) / (8 + size) / 3 * 3
	binary.LittleEndian.PutUint32(b[4:], flags)
	binary.LittleEndian.PutUint64(b[8:], at)
	binary.LittleEndian.PutUint32(b[16:], uint32(len(keys)))
	binary.LittleEndian.PutUint32(b[20:], room)
	binary.LittleEndian.PutUint32(b[24:], size)
	for i, k := range keys {
		binary.LittleEndian.PutUint64(b[nodeHeader+8*i:], k)
		for j, w := range values[i] {
			binary.LittleEndian.PutUint64(b[nodeHeader+8*int(room)+int(size)*i+8*j:], w)
		}
	}
	return withChecksum(b, nodeSalt)
}

// tree is a metadata device with a superblock at 5, one inner node and two leaves.
func tree(change func(blocks [][]byte)) io.ReaderAt {
	blocks := make([][]byte, 9)
	for i := range blocks {
		blocks[i] = make([]byte, metadataBlock)
	}
	blocks[5] = superblockOf(6, 64<<10)
	blocks[6] = nodeOf(6, nodeInternal, []uint64{1, 5}, [][]uint64{{7}, {8}})
	blocks[7] = nodeOf(7, nodeLeaf, []uint64{1, 4}, [][]uint64{{3, 8, 2<<32 | 1}, {0, 9, 0}})
	blocks[8] = nodeOf(8, nodeLeaf, []uint64{5}, [][]uint64{{1, 9, 7}})
	if change != nil {
		change(blocks)
	}
	return bytes.NewReader(slices.Concat(blocks...))
}

func TestReadThins(t *testing.T) {
	want := []Thin{
		{ID: 1, MappedBytes: 3 * 64 << 10, TransactionID: 8, CreationTime: 1, SnapshotTime: 2},
		{ID: 4, TransactionID: 9},
		{ID: 5, MappedBytes: 64 << 10, TransactionID: 9, CreationTime: 7},
	}
	got, err := readThins(tree(nil), 5)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
}

// A block that is not what it should be gives an error, and never a wrong list: devices
// would be taken for lost.
func TestReadThinsRefuses(t *testing.T) {
	tests := map[string]func(b [][]byte){
		"no superblock":         func(b [][]byte) { clear(b[5]) },
		"superblock checksum":   func(b [][]byte) { b[5][200] ^= 1 },
		"superblock block size": func(b [][]byte) { b[5] = superblockOf(6, 4096) },
		"blank node":            func(b [][]byte) { clear(b[7]) },
		"node checksum":         func(b [][]byte) { b[8][4000] ^= 1 },
		"stale node of another": func(b [][]byte) { b[8] = nodeOf(7, nodeLeaf, []uint64{9}, make([][]uint64, 1)) },
		"unknown node flags":    func(b [][]byte) { b[7] = nodeOf(7, 4, nil, nil) },
		"both node flags":       func(b [][]byte) { b[7] = nodeOf(7, 3, nil, nil) },
		"keys not rising":       func(b [][]byte) { b[7] = nodeOf(7, nodeLeaf, []uint64{4, 4}, make([][]uint64, 2)) },
		"leaves not rising":     func(b [][]byte) { b[8] = nodeOf(8, nodeLeaf, []uint64{4}, make([][]uint64, 1)) },
		"id too large": func(b [][]byte) {
			b[8] = nodeOf(8, nodeLeaf, []uint64{1 << 24},
				make([][]uint64, 1))
		},
		"mapped overflows":     func(b [][]byte) { b[8] = nodeOf(8, nodeLeaf, []uint64{5}, [][]uint64{{1 << 60}}) },
		"child beyond the end": func(b [][]byte) { b[6] = nodeOf(6, nodeInternal, []uint64{1}, [][]uint64{{99}}) },
		"child beyond any end": func(b [][]byte) {
			b[6] = nodeOf(6, nodeInternal, []uint64{1},
				[][]uint64{{1 << 62}})
		},
		"inner node is its own": func(b [][]byte) { b[6] = nodeOf(6, nodeInternal, []uint64{1}, [][]uint64{{6}}) },
		"more entries than room": func(b [][]byte) {
			binary.LittleEndian.PutUint32(b[7][16:], 1000)
			withChecksum(b[7],
				nodeSalt)
		},
		"more room than a block": func(b [][]byte) {
			binary.LittleEndian.PutUint32(b[7][20:], 1000)
			withChecksum(b[7],
				nodeSalt)
		},
		"odd value size": func(b [][]byte) {
			binary.LittleEndian.PutUint32(b[7][24:], 16)
			withChecksum(b[7],
				nodeSalt)
		},
	}
	for name, change := range tests {
		if got, err := readThins(tree(change), 5); err == nil || got != nil {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// The fuzzer sets the bytes of two blocks; their checksums are put right, or it would
// never get past them.
func FuzzReadThins(f *testing.F) {
	f.Add(nodeOf(6, nodeInternal, []uint64{1, 5}, [][]uint64{{7}, {8}}),
		nodeOf(7, nodeLeaf, []uint64{1, 4}, [][]uint64{{3, 8, 1}, {0, 9, 0}}))
	f.Add(nodeOf(6, nodeInternal, []uint64{1, 2, 3}, [][]uint64{{6}, {6}, {6}}), []byte{})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		r := tree(func(blocks [][]byte) {
			for i, bytes := range [][]byte{a, b} {
				clear(blocks[6+i])
				copy(blocks[6+i], bytes)
				withChecksum(blocks[6+i], nodeSalt)
			}
		})
		list, err := readThins(r, 5)
		if err != nil {
			return
		}
		for i, th := range list {
			if th.ID < 0 || th.ID > maxID || th.MappedBytes < 0 || i > 0 && th.ID <= list[i-1].ID {
				t.Errorf("%+v", list)
			}
		}
	})
}

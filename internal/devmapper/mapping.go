package devmapper

import (
	"encoding/binary"
	"fmt"
	"io"
	"sort"
)

// mappedBlocks returns the data blocks that the first blocks of a thin device are mapped
// to. ErrNotFound says that there is no such device, or that nothing was ever written
// there.
//
// The mappings are a B-tree of B-trees: by device, then by block. A block's value is its
// number shifted by 24, and the time of the snapshot that it is as old as
// (unpack_block_time in dm-thin-metadata.c).
func mappedBlocks(r io.ReaderAt, sb superblock, id ID, blocks []uint64) error {
	root, err := lookUp(r, sb.mappingRoot, uint64(id))
	if err != nil {
		return fmt.Errorf("mappings of thin device %d: %w", id, err)
	}
	for i := range blocks {
		value, err := lookUp(r, root, uint64(i))
		if err != nil {
			return fmt.Errorf("mapping of block %d of thin device %d: %w", i, id, err)
		}
		blocks[i] = value >> 24
	}
	return nil
}

// lookUp finds the value of a key in a B-tree whose values are numbers.
func lookUp(r io.ReaderAt, root, key uint64) (uint64, error) {
	at := root
	for range maxTreeDepth {
		n, err := readNode(r, at, mappingSize)
		if err != nil {
			return 0, err
		}
		i := sort.Search(len(n.keys), func(i int) bool { return n.keys[i] > key }) - 1 // the last that is not above
		if i < 0 || n.leaf && n.keys[i] != key {
			return 0, ErrNotFound
		}
		value := binary.LittleEndian.Uint64(n.value(i))
		if n.leaf {
			return value, nil
		}
		at = value
	}
	return 0, fmt.Errorf("%w: metadata tree does not end at block %d", errMalformed, at)
}

package devmapper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sort"
)

// errNotMapped is returned when a tree does not have the key.
var errNotMapped = errors.New("not mapped")

// node is one node of a B-tree. A value has 8 bytes (children, mappings) or detailsSize
// (device details).
type node struct {
	leaf   bool
	keys   []uint64
	values []byte
	size   int // of a value, bytes
}

func readNode(r io.ReaderAt, at uint64, leafSize uint32) (node, error) {
	block, err := readBlock(r, at)
	if err != nil {
		return node{}, err
	}
	return parseNode(block, at, leafSize)
}

// parseNode checks everything it uses: a malformed block gives an error, never a wrong
// list. leafSize is the size of a value in the tree's leaves, in bytes.
func parseNode(block []byte, at uint64, leafSize uint32) (node, error) {
	bad := fmt.Errorf("%w metadata node at block %d", errMalformed, at)
	if len(block) != metadataBlock || !checksumMatches(block, nodeSalt) || binary.LittleEndian.Uint64(block[8:]) != at {
		return node{}, bad
	}
	flags := binary.LittleEndian.Uint32(block[4:])
	count, room := binary.LittleEndian.Uint32(block[16:]), binary.LittleEndian.Uint32(block[20:])
	size := binary.LittleEndian.Uint32(block[24:])
	want := map[uint32]uint32{nodeInternal: 8, nodeLeaf: leafSize}[flags]
	if want == 0 || size != want || count > room || room > metadataBlock || nodeHeader+room*(8+size) > metadataBlock {
		return node{}, bad
	}
	n := node{leaf: flags == nodeLeaf, size: int(size)}
	for i := range count {
		n.keys = append(n.keys, binary.LittleEndian.Uint64(block[nodeHeader+8*i:]))
		if i > 0 && n.keys[i] <= n.keys[i-1] {
			return node{}, bad
		}
	}
	n.values = block[nodeHeader+8*room:][:count*size]
	return n, nil
}

func (n node) value(i int) []byte { return n.values[i*n.size:][:n.size] }

// walkTree calls leaf with every key and value of a tree, in the order of its nodes.
func walkTree(r io.ReaderAt, root uint64, leafSize uint32, leaf func(key uint64, value []byte) error) error {
	w := treeReader{r: r, leafSize: leafSize, leaf: leaf, seen: map[uint64]bool{}}
	return w.walk(root, maxTreeDepth)
}

// treeReader walks one tree.
type treeReader struct {
	r        io.ReaderAt
	leafSize uint32
	leaf     func(key uint64, value []byte) error
	seen     map[uint64]bool // blocks of the tree; a block met twice would make a loop of it
}

func (w *treeReader) walk(at uint64, depth int) error {
	if depth == 0 || w.seen[at] {
		return fmt.Errorf("%w: metadata tree does not end at block %d", errMalformed, at)
	}
	w.seen[at] = true
	n, err := readNode(w.r, at, w.leafSize)
	if err != nil {
		return err
	}
	for i, key := range n.keys {
		if n.leaf {
			err = w.leaf(key, n.value(i))
		} else {
			err = w.walk(binary.LittleEndian.Uint64(n.value(i)), depth-1)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// mappedBlocks fills blocks with the data blocks under the first blocks of a thin device.
// errNotMapped is returned when there is no such device, or nothing was ever written
// there.
//
// The mappings are a B-tree of B-trees: by device, then by block. A value is the block's
// number shifted by 24, and in the lower bits the time of the snapshot it is as old as
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

// lookUp returns the value of a key in a B-tree of numbers, or errNotMapped.
func lookUp(r io.ReaderAt, root, key uint64) (uint64, error) {
	at := root
	for range maxTreeDepth {
		n, err := readNode(r, at, mappingSize)
		if err != nil {
			return 0, err
		}
		i := sort.Search(len(n.keys), func(i int) bool { return n.keys[i] > key }) - 1 // the last key not above
		if i < 0 || n.leaf && n.keys[i] != key {
			return 0, errNotMapped
		}
		value := binary.LittleEndian.Uint64(n.value(i))
		if n.leaf {
			return value, nil
		}
		at = value
	}
	return 0, fmt.Errorf("%w: metadata tree does not end at block %d", errMalformed, at)
}

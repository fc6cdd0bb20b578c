package devmapper

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"unsafe"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

// The format is drivers/md/dm-thin-metadata.c and persistent-data/dm-btree-internal.h:
// blocks of 4 KiB, little-endian, each with a checksum. Read are the superblock, the tree
// of device details, and where one block is mapped to (mapping.go).
const (
	metadataBlock    = 4096
	superblockMagic  = 27022010
	superblockSalt   = 160774 // SUPERBLOCK_CSUM_XOR
	nodeSalt         = 121107 // BTREE_CSUM_XOR
	flagNeedsCheck   = 1
	nodeInternal     = 1
	nodeLeaf         = 2
	nodeHeader       = 32
	detailsSize      = 24
	mappingSize      = 8 // of a root, and of a block with its time
	maxTreeDepth     = 8 // 2^24 devices need four levels at the least filling
	offMagic         = 32
	offFlags         = 4
	offOwner         = 16 // uuid[16], which the kernel keeps and does not use
	offTransaction   = 48
	offHeldRoot      = 56
	offBlocks        = 192      // the root of the metadata's space map begins with it
	offBitmapRoot    = 192 + 16 // in that root
	offMappingRoot   = 320
	offDetailsRoot   = 328
	offDataBlockSize = 336
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Thin is a thin device as the pool's metadata has it, active or not.
type Thin struct {
	ID            ID     `json:"id"`
	MappedBytes   int64  `json:"mapped_bytes"`   // blocks mapped, those shared with other devices included
	TransactionID uint64 `json:"transaction_id"` // the pool's when it was created
	CreationTime  uint32 `json:"creation_time"`  // not a clock: the pool's count of snapshots
	SnapshotTime  uint32 `json:"snapshot_time"`  // that count when a snapshot of it was taken last
}

// superblock is what is used of a metadata superblock.
type superblock struct {
	detailsRoot    uint64
	mappingRoot    uint64
	transactionID  uint64 // the pool's generation, see dataStamp
	heldRoot       uint64 // block of the metadata snapshot, 0 if there is none
	metadataBlocks uint64 // how many the metadata's space map has
	bitmapRoot     uint64 // block of the index of that
	blockSize      int64  // of data, bytes
	needsCheck     bool
	owner          uuid.UUID // the pool's, see ownerOf; zero if nobody's
}

// seal is the checksum that a block should carry: CRC-32C without the final inversion,
// salted by the block's type.
func seal(block []byte, salt uint32) uint32 {
	return ^crc32.Checksum(block[4:metadataBlock], castagnoli) ^ salt
}

func sealed(block []byte, salt uint32) bool {
	return binary.LittleEndian.Uint32(block) == seal(block, salt)
}

// isSuperblock is generous: a damaged superblock is still somebody's pool, and is never
// formatted.
func isSuperblock(block []byte) bool {
	return binary.LittleEndian.Uint64(block[offMagic:]) == superblockMagic || sealed(block, superblockSalt)
}

func parseSuperblock(block []byte) (superblock, error) {
	if len(block) != metadataBlock || binary.LittleEndian.Uint64(block[offMagic:]) != superblockMagic ||
		!sealed(block, superblockSalt) {
		return superblock{}, fmt.Errorf("%w metadata superblock", errMalformed)
	}
	sb := superblock{
		detailsRoot:    binary.LittleEndian.Uint64(block[offDetailsRoot:]),
		mappingRoot:    binary.LittleEndian.Uint64(block[offMappingRoot:]),
		transactionID:  binary.LittleEndian.Uint64(block[offTransaction:]),
		heldRoot:       binary.LittleEndian.Uint64(block[offHeldRoot:]),
		metadataBlocks: binary.LittleEndian.Uint64(block[offBlocks:]),
		bitmapRoot:     binary.LittleEndian.Uint64(block[offBitmapRoot:]),
		blockSize:      int64(binary.LittleEndian.Uint32(block[offDataBlockSize:])) * sector,
		needsCheck:     binary.LittleEndian.Uint32(block[offFlags:])&flagNeedsCheck != 0,
	}
	copy(sb.owner[:], block[offOwner:])
	if sb.metadataBlocks > maxBitmaps*blocksPerBitmap {
		return superblock{}, fmt.Errorf("%w metadata superblock: %d blocks of metadata",
			errMalformed, sb.metadataBlocks)
	}
	if sb.blockSize < minBlockSize || sb.blockSize > maxBlockSize {
		return superblock{}, fmt.Errorf("%w metadata superblock: data blocks of %d bytes", errMalformed, sb.blockSize)
	}
	return sb, nil
}

// node is one node of a B-tree with values of 8 bytes (children, mappings) or detailsSize
// (device details).
type node struct {
	leaf   bool
	keys   []uint64
	values []byte
	size   int // of a value, bytes
}

// parseNode checks all that is used: a block that is not what it should be gives an
// error, never a wrong list. leafSize is that of the values in the tree's leaves, in
// bytes.
func parseNode(block []byte, at uint64, leafSize uint32) (node, error) {
	bad := fmt.Errorf("%w metadata node at block %d", errMalformed, at)
	if len(block) != metadataBlock || !sealed(block, nodeSalt) || binary.LittleEndian.Uint64(block[8:]) != at {
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

func readNode(r io.ReaderAt, at uint64, leafSize uint32) (node, error) {
	block, err := readBlock(r, at)
	if err != nil {
		return node{}, err
	}
	return parseNode(block, at, leafSize)
}

func (n node) value(i int) []byte { return n.values[i*n.size:][:n.size] }

// readThins returns the devices of the metadata whose superblock, or snapshot of one, is
// at block root. Errors are those of r, and of blocks that do not pass their checks.
func readThins(r io.ReaderAt, root uint64) ([]Thin, error) {
	block, err := readBlock(r, root)
	if err != nil {
		return nil, err
	}
	sb, err := parseSuperblock(block)
	if err != nil {
		return nil, err
	}
	l := thinList{blockSize: sb.blockSize}
	if err := walkTree(r, sb.detailsRoot, detailsSize, l.leaf); err != nil {
		return nil, err
	}
	return l.thins, nil
}

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
	seen     map[uint64]bool // blocks of the tree: one that is met again would let a damaged tree go on for ever
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

// thinList collects the leaves of the device details in the order of their ids.
type thinList struct {
	blockSize int64
	thins     []Thin
}

// leaf adds one struct disk_device_details. The ids must rise over the whole tree.
func (l *thinList) leaf(key uint64, v []byte) error {
	mapped := binary.LittleEndian.Uint64(v)
	if key > uint64(maxID) || mapped > uint64(1<<62/l.blockSize) || len(l.thins) > 0 &&
		ID(key) <= l.thins[len(l.thins)-1].ID {
		return fmt.Errorf("%w: details of thin device %d", errMalformed, key)
	}
	l.thins = append(l.thins, Thin{
		ID:            ID(key),
		MappedBytes:   int64(mapped) * l.blockSize,
		TransactionID: binary.LittleEndian.Uint64(v[8:]),
		CreationTime:  binary.LittleEndian.Uint32(v[16:]),
		SnapshotTime:  binary.LittleEndian.Uint32(v[20:]),
	})
	return nil
}

func readBlock(r io.ReaderAt, at uint64) ([]byte, error) {
	if at > maxMetadataSize/metadataBlock {
		return nil, fmt.Errorf("%w: metadata block %d", errMalformed, at)
	}
	block := alignedBlock()
	if _, err := r.ReadAt(block, int64(at)*metadataBlock); err != nil {
		return nil, fmt.Errorf("read metadata block %d: %w", at, err)
	}
	return block, nil
}

// alignedBlock is a buffer that direct I/O accepts on any device.
func alignedBlock() []byte {
	buf := make([]byte, 2*metadataBlock)
	off := -uintptr(unsafe.Pointer(&buf[0])) & (metadataBlock - 1)
	return buf[off:][:metadataBlock:metadataBlock]
}

// openDirect opens a block device for reading past the page cache, which does not see
// what the kernel's own writers (dm-bufio) do.
func openDirect(path string, flags int) (*os.File, error) {
	return os.OpenFile(path, flags|unix.O_DIRECT|unix.O_CLOEXEC, 0)
}

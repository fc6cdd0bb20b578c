package devmapper

import (
	"encoding/binary"
	"fmt"
	"io"
	"unsafe"
)

// The format is drivers/md/dm-thin-metadata.c and persistent-data/dm-btree-internal.h:
// blocks of 4 KiB, little-endian, each with a checksum. This package reads the superblock
// (superblock.go), the trees of device details and of mappings (btree.go), and the space
// map (metasnap.go).
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

// Thin is a thin device in the pool's metadata, active or not.
type Thin struct {
	ID            ID     `json:"id"`
	MappedBytes   int64  `json:"mapped_bytes"`   // shared blocks included
	TransactionID uint64 `json:"transaction_id"` // the pool's at the device's creation
	CreationTime  uint32 `json:"creation_time"`  // not a clock: the pool's count of snapshots
	SnapshotTime  uint32 `json:"snapshot_time"`  // the count at the last snapshot of the device
}

// readThins returns the devices of the metadata with a superblock, or a snapshot of one,
// at block root. Errors are those of r, and of blocks that fail their checks.
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

// alignedBlock returns a zeroed block that direct I/O accepts on any device.
func alignedBlock() []byte {
	buf := make([]byte, 2*metadataBlock)
	off := -uintptr(unsafe.Pointer(&buf[0])) & (metadataBlock - 1)
	return buf[off:][:metadataBlock:metadataBlock]
}

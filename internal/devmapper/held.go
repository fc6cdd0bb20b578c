package devmapper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// The kernel makes a metadata snapshot (reserve_metadata_snap) in two steps that a power cut comes between: it writes its block into the
// superblock together with the blocks of the transaction, and only then, after a flush, the superblock with the space map that counts
// it. In between, the superblock names a snapshot that nothing counts. The kernel believes it; told to release it, it takes references
// back that were never taken, and the pool's own trees lose their blocks. So such a snapshot is struck out before the kernel sees it: the
// rest is as it was at the last commit. Source: __reserve_metadata_snap and __commit_transaction in drivers/md/dm-thin-metadata.c.

// The space map of the metadata: one block with an index of up to 255 bitmaps, and in these two bits a block, 0 for a free one
// (persistent-data/dm-space-map-common.h).
const (
	indexSalt       = 160478 // INDEX_CSUM_XOR
	bitmapSalt      = 240779 // BITMAP_CSUM_XOR
	bitmapHeader    = 16
	blocksPerBitmap = (metadataBlock - bitmapHeader) * 4
	maxBitmaps      = 255
)

// strikeUncounted removes a metadata snapshot from the superblock of a pool that is not active, if the space map does not count it.
// Errors: ErrDamaged where the space map cannot be read, and errno.
func (p *Pool) strikeUncounted(sb superblock, metadata blockDevice) error {
	if sb.heldRoot == 0 {
		return nil
	}
	f, err := openDirect(metadata.path, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	counted, err := isCounted(f, sb, sb.heldRoot)
	if err != nil {
		return fmt.Errorf("%w: %s: %w: run `consumer pool repair`", ErrDamaged, metadata.source, err)
	}
	if counted { // whole: the kernel can release it
		return nil
	}
	if err := p.ctl.remove(p.cfg.poolUUID()); err != nil && !errors.Is(err, unix.ENXIO) { // half-created, it may have the metadata open
		return fmt.Errorf("remove half-created pool: %w", err)
	}
	block, err := readBlock(f, 0)
	if err != nil {
		return err
	}
	binary.LittleEndian.PutUint64(block[offHeldRoot:], 0)
	binary.LittleEndian.PutUint32(block, seal(block, superblockSalt))
	return writeFirst(metadata, block)
}

// isCounted tells whether the metadata's space map holds a block to be in use.
func isCounted(r io.ReaderAt, sb superblock, at uint64) (bool, error) {
	if at >= maxBitmaps*blocksPerBitmap {
		return false, nil
	}
	index, err := sealedBlock(r, sb.bitmapRoot, indexSalt)
	if err != nil {
		return false, err
	}
	bitmap, err := sealedBlock(r, binary.LittleEndian.Uint64(index[bitmapHeader+16*(at/blocksPerBitmap):]), bitmapSalt)
	if err != nil {
		return false, err
	}
	bit := at % blocksPerBitmap * 2
	return bitmap[bitmapHeader+bit/8]>>(bit%8)&3 != 0, nil
}

// sealedBlock reads a block of the space map.
func sealedBlock(r io.ReaderAt, at uint64, salt uint32) ([]byte, error) {
	block, err := readBlock(r, at)
	if err != nil {
		return nil, err
	}
	if !sealed(block, salt) || binary.LittleEndian.Uint64(block[8:]) != at {
		return nil, fmt.Errorf("%w space map at block %d", errMalformed, at)
	}
	return block, nil
}

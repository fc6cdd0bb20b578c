package devmapper

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// The kernel makes a metadata snapshot (reserve_metadata_snap) in two steps that a power
// cut comes between: it writes its block into the superblock together with the blocks of
// the transaction, and only then, after a flush, the superblock with the space map that
// counts it. In between, the superblock names a snapshot that nothing counts. The kernel
// believes it; told to release it, it takes references back that were never taken, and
// the pool's own trees lose their blocks. So such a snapshot is struck out before the
// kernel sees it: the rest is as it was at the last commit. In the same way a release
// leaves one that is counted and not named, with all the blocks that it keeps: it is
// named again, and then the kernel can release it. Source: __reserve_metadata_snap,
// __release_metadata_snap and __commit_transaction in drivers/md/dm-thin-metadata.c.

// The space map of the metadata: one block with an index of up to 255 bitmaps, and in
// these two bits a block, 0 for a free one (persistent-data/dm-space-map-common.h).
const (
	indexSalt       = 160478 // INDEX_CSUM_XOR
	bitmapSalt      = 240779 // BITMAP_CSUM_XOR
	bitmapHeader    = 16
	blocksPerBitmap = (metadataBlock - bitmapHeader) * 4
	maxBitmaps      = 255
)

// checkMetadata checks the metadata of a pool that is not active, as LVM does at every
// activation, after it has put the snapshot right that they may have. Errors: ErrDamaged
// where they are not sound, ErrUnavailable without thin_check, and errno.
func checkMetadata(ctx context.Context, sb superblock, metadata blockDevice) error {
	f, err := openDirect(metadata.path, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := clearUncounted(f, sb, metadata); err != nil {
		return err
	}
	bad := runThinCheck(ctx, metadata.path)
	if sb.heldRoot != 0 || !errors.Is(bad, ErrDamaged) {
		return bad
	}
	root, err := findUnnamed(f, sb)
	if root == 0 {
		return errors.Join(bad, err)
	}
	if err := setHeldRoot(metadata, root); err != nil {
		return err
	}
	return runThinCheck(ctx, metadata.path)
}

// clearUncounted removes a metadata snapshot from the superblock if the space map does
// not count it.
func clearUncounted(r io.ReaderAt, sb superblock, metadata blockDevice) error {
	if sb.heldRoot == 0 {
		return nil
	}
	if sb.heldRoot < sb.metadataBlocks {
		counts, err := readBitmap(r, sb, sb.heldRoot)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrDamaged, metadata.source, err)
		}
		if counts.has(sb.heldRoot) { // whole: the kernel can release it
			return nil
		}
	}
	return setHeldRoot(metadata, 0)
}

func setHeldRoot(metadata blockDevice, root uint64) error {
	return changeSuperblock(metadata, func(block []byte) { binary.LittleEndian.PutUint64(block[offHeldRoot:], root) })
}

// findUnnamed finds a metadata snapshot that the space map counts, in metadata whose
// superblock names none; 0 if there is none. It is known by its seal: a counted block is
// never anything but what it was written as, and only superblocks and their copies have
// theirs.
func findUnnamed(r io.ReaderAt, sb superblock) (uint64, error) {
	var counts bitmap
	for at := uint64(1); at < sb.metadataBlocks; at++ {
		var err error
		if at == 1 || at%blocksPerBitmap == 0 {
			counts, err = readBitmap(r, sb, at)
		}
		if err != nil {
			return 0, err
		}
		if !counts.has(at) {
			continue
		}
		block, err := readBlock(r, at)
		if err != nil {
			return 0, err
		}
		if _, err := parseSuperblock(block); err == nil && binary.LittleEndian.Uint64(block[8:]) == at {
			return at, nil
		}
	}
	return 0, nil
}

// bitmap is a block of the space map.
type bitmap []byte

// has tells whether a block that the bitmap is about is in use.
func (b bitmap) has(at uint64) bool {
	bit := at % blocksPerBitmap * 2
	return b[bitmapHeader+bit/8]>>(bit%8)&3 != 0
}

// readBitmap reads the bitmap about a block.
func readBitmap(r io.ReaderAt, sb superblock, at uint64) (bitmap, error) {
	index, err := readSpaceMapBlock(r, sb.bitmapRoot, indexSalt)
	if err != nil {
		return nil, err
	}
	return readSpaceMapBlock(r, binary.LittleEndian.Uint64(index[bitmapHeader+16*(at/blocksPerBitmap):]), bitmapSalt)
}

// readSpaceMapBlock reads a block of the space map.
func readSpaceMapBlock(r io.ReaderAt, at uint64, salt uint32) ([]byte, error) {
	block, err := readBlock(r, at)
	if err != nil {
		return nil, err
	}
	if !checksumMatches(block, salt) || binary.LittleEndian.Uint64(block[8:]) != at {
		return nil, fmt.Errorf("%w space map at block %d", errMalformed, at)
	}
	return block, nil
}

// metadataRoot returns the block to read the metadata from. release must be called when
// done.
func (p *Pool) metadataRoot() (root uint64, release func() error, err error) {
	s, err := p.Status()
	if err != nil {
		return 0, nil, err
	}
	if s.checkWritable() != nil && s.Mode != ModeFailed {
		return 0, func() error { return nil }, nil
	}
	if s.HeldRoot { // we have the lock: whoever made it is dead
		if err := p.message("release_metadata_snap"); err != nil {
			return 0, nil, err
		}
	}
	if err := p.message("reserve_metadata_snap"); err != nil {
		return 0, nil, err
	}
	release = func() error { return p.message("release_metadata_snap") }
	if s, err = p.Status(); err != nil || !s.HeldRoot {
		return 0, nil, errors.Join(err, release(), fmt.Errorf("%w: no metadata snapshot after it was reserved",
			errMalformed))
	}
	return s.heldRoot, release, nil
}

// releaseStale releases a metadata snapshot of a dead process: it keeps the blocks of
// deleted devices. The caller has the lock.
func (p *Pool) releaseStale() error {
	s, err := p.Status()
	if err != nil || !s.HeldRoot || s.checkWritable() != nil {
		return err
	}
	return p.message("release_metadata_snap")
}

package devmapper

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// The kernel makes a metadata snapshot (reserve_metadata_snap) in two steps. First it
// writes the snapshot's block number into the superblock, together with the blocks of the
// transaction. Only then, after a flush, it writes the superblock with a space map that
// counts the snapshot.
//
// A power cut between the two leaves a superblock naming a snapshot that nothing counts.
// The kernel believes it. Told to release it, the kernel gives back references it never
// took, and the pool's own trees lose their blocks. So such a snapshot is cleared before
// the kernel sees it; the rest of the metadata is as it was at the last commit.
//
// In the same way an interrupted release leaves a snapshot that is counted and not named,
// and keeps all its blocks. It is named again, and then the kernel can release it.
//
// Source: __reserve_metadata_snap, __release_metadata_snap and __commit_transaction in
// drivers/md/dm-thin-metadata.c.

// The space map of the metadata has one block with an index of up to 255 bitmaps. A
// bitmap has two bits a block, 0 for a free one (persistent-data/dm-space-map-common.h).
const (
	indexSalt       = 160478 // INDEX_CSUM_XOR
	bitmapSalt      = 240779 // BITMAP_CSUM_XOR
	bitmapHeader    = 16
	blocksPerBitmap = (metadataBlock - bitmapHeader) * 4
	maxBitmaps      = 255
)

// metadataRoot returns the block to read the metadata from. The caller calls release
// afterwards.
func (p *Pool) metadataRoot() (root uint64, release func() error, err error) {
	s, err := p.Status()
	if err != nil {
		return 0, nil, err
	}
	if s.checkWritable() != nil && s.Mode != ModeFailed {
		return 0, func() error { return nil }, nil
	}
	if s.HeldRoot { // its maker is dead, because this process has the lock
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

// releaseStale releases the metadata snapshot of a dead process, because it keeps the
// blocks of deleted devices. The caller has the lock.
func (p *Pool) releaseStale() error {
	s, err := p.Status()
	if err != nil || !s.HeldRoot || s.checkWritable() != nil {
		return err
	}
	return p.message("release_metadata_snap")
}

// checkMetadata puts a metadata snapshot right and then checks the metadata of an
// inactive pool, as LVM does at every activation. Errors: ErrDamaged if they are not
// sound, ErrUnavailable without thin_check, and errno.
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

// findUnnamed returns the block of a metadata snapshot that the space map counts and the
// superblock does not name, or 0. It recognizes the snapshot by its checksum: a counted
// block always holds what it was written as, and only superblocks and their copies have
// this kind of checksum.
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

// has reports whether a block covered by the bitmap is in use.
func (b bitmap) has(at uint64) bool {
	bit := at % blocksPerBitmap * 2
	return b[bitmapHeader+bit/8]>>(bit%8)&3 != 0
}

// readBitmap reads the bitmap that covers a block.
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

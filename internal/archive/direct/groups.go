package direct

import (
	"context"

	"imagemanager.internal/internal/archive/fstree"
)

// writeGroups writes the bitmaps of the groups in use, then the descriptors of all and
// the superblock. Their copies stay as mke2fs wrote them, as the kernel leaves them too.
func (w *Writer) writeGroups(ctx context.Context) error {
	inodes := w.inodes()
	dirs := w.dirsByGroup()
	end := w.free.end()
	var freeBlocks uint64
	for g := range w.fs.groups {
		d := w.fs.descriptor(g)
		if first := g * w.fs.inodesPerGroup; inodes > first {
			if err := w.writeInodeBitmap(ctx, d, min(inodes-first, w.fs.inodesPerGroup), dirs[g]); err != nil {
				return err
			}
		}
		if end > uint64(g)*uint64(w.fs.blocksPerGroup) {
			if err := w.writeBlockBitmap(ctx, g, end); err != nil {
				return err
			}
		}
		freeBlocks += uint64(d.count(descFreeBlocks, descFreeBlocksHigh))
		le.PutUint16(d[descChecksum:], d.checksum(w.fs.seed, g))
	}
	for k := range w.fs.tableBlocks() {
		b, err := w.out.block(ctx, uint64(1+k))
		if err != nil {
			return err
		}
		copy(b, w.fs.table[k*blockSize:])
	}
	return w.writeSuperblock(ctx, freeBlocks, uint32(w.fs.inodes())-inodes)
}

// dirsByGroup counts the new directories whose inodes are in a group.
func (w *Writer) dirsByGroup() map[uint32]uint32 {
	dirs := map[uint32]uint32{}
	for n, i := range w.order {
		if w.plan.Tree.At(i).Kind == fstree.KindDir {
			dirs[(firstInode-1+uint32(n))/w.fs.inodesPerGroup]++
		}
	}
	return dirs
}

// writeInodeBitmap marks the first inodes of a group as used.
func (w *Writer) writeInodeBitmap(ctx context.Context, d descriptor, used, dirs uint32) error {
	b, err := w.out.block(ctx, d.block(descInodeBitmap))
	if err != nil {
		return err
	}
	for i := range b {
		b[i] = 0xff // past the inodes of the group too
	}
	for i := used; i < w.fs.inodesPerGroup; i++ {
		b[i/8] &^= 1 << (i % 8)
	}
	unused := w.fs.inodesPerGroup - used
	d.setCount(descFreeInodes, descFreeInodesHigh, unused)
	d.setCount(descUnusedInodes, descUnusedInodesHigh, unused)
	d.setCount(descDirs, descDirsHigh, d.count(descDirs, descDirsHigh)+dirs)
	d.setCount(descInodeBitmapSum, descInodeBitmapSumHigh, checksum(w.fs.seed, b[:w.fs.inodesPerGroup/8]))
	d.clear(inodesUninitialised)
	return nil
}

// writeBlockBitmap marks the blocks of a group before end as used. In all groups but the
// last that was looked at these are all blocks.
func (w *Writer) writeBlockBitmap(ctx context.Context, g uint32, end uint64) error {
	d := w.fs.descriptor(g)
	b, err := w.out.block(ctx, d.block(descBlockBitmap))
	if err != nil {
		return err
	}
	first := uint64(g) * uint64(w.fs.blocksPerGroup)
	copy(b, w.free.last)
	if g+1 < w.free.groups {
		end = first + uint64(w.fs.blocksPerGroup)
	}
	for i := range min(end-first, uint64(w.fs.blocksPerGroup)) {
		b[i/8] |= 1 << (i % 8)
	}
	d.setCount(descFreeBlocks, descFreeBlocksHigh, countZeros(b))
	d.setCount(descBlockBitmapSum, descBlockBitmapSumHigh, checksum(w.fs.seed, b))
	d.clear(blocksUninitialised)
	return nil
}

func (w *Writer) writeSuperblock(ctx context.Context, freeBlocks uint64, freeInodes uint32) error {
	b, err := w.out.block(ctx, 0)
	if err != nil {
		return err
	}
	copy(b, w.fs.first)
	s := b[superblockAt:][:superblockSize]
	putWords(s, 0x0c, 0x158, freeBlocks)
	le.PutUint32(s[0x10:], freeInodes)
	le.PutUint32(s[0x30:], uint32(w.now.Unix()))
	s[0x274] = byte(w.now.Unix() >> 32)
	le.PutUint32(s[0x3fc:], checksum(^uint32(0), s[:0x3fc]))
	return nil
}

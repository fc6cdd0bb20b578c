package direct

import (
	"context"
	"slices"
)

const (
	extentMagic    = 0xf30a
	extentBytes    = 12
	extentsInInode = 4
	extentsInBlock = (blockSize - extentBytes) / extentBytes // header in front; the checksum fits behind
)

// leaves returns how many blocks the extents of an inode's data need beside the inode.
func (s *space) leaves(p *place) int {
	n := 0
	for range s.extents(uint64(p.start), uint64(p.blocks)) {
		n++
	}
	if n <= extentsInInode {
		return 0
	}
	return (n + extentsInBlock - 1) / extentsInBlock
}

// putExtents fills in an inode's root of the extent tree, 60 bytes.
func (l *layout) putExtents(b []byte, p *place) {
	leaves, n := l.free.leaves(p), 0
	for e := range l.free.extents(uint64(p.start), uint64(p.blocks)) {
		switch {
		case leaves == 0:
			putExtent(b, n, e)
		case n%extentsInBlock == 0:
			leaf := n / extentsInBlock
			block := l.free.block(uint64(p.start) + uint64(p.blocks) + uint64(leaf))
			at := b[extentBytes*(1+leaf):]
			le.PutUint32(at, uint32(e.logical))
			le.PutUint32(at[4:], uint32(block))
			le.PutUint16(at[8:], uint16(block>>32))
		}
		n++
	}
	if leaves == 0 {
		putExtentHeader(b, n, extentsInInode, 0)
	} else {
		putExtentHeader(b, leaves, extentsInInode, 1)
	}
}

// writeLeaves writes the blocks with the extents of an inode's data, if it has any.
func (w *Writer) writeLeaves(ctx context.Context, p *place) error {
	leaves := w.free.leaves(p)
	if leaves == 0 {
		return nil
	}
	list := slices.Collect(w.free.extents(uint64(p.start), uint64(p.blocks)))
	for leaf := range leaves {
		b, err := w.out.block(ctx, w.free.block(uint64(p.start)+uint64(p.blocks)+uint64(leaf)))
		if err != nil {
			return err
		}
		part := list[leaf*extentsInBlock : min((leaf+1)*extentsInBlock, len(list))]
		putExtentHeader(b, len(part), extentsInBlock, 0)
		for i, e := range part {
			putExtent(b, i, e)
		}
		const tail = extentBytes * (1 + extentsInBlock)
		le.PutUint32(b[tail:], checksum(w.fs.inodeSeed(p.ino), b[:tail]))
	}
	return nil
}

func putExtentHeader(b []byte, entries, most, depth int) {
	le.PutUint16(b, extentMagic)
	le.PutUint16(b[2:], uint16(entries))
	le.PutUint16(b[4:], uint16(most))
	le.PutUint16(b[6:], uint16(depth))
}

func putExtent(b []byte, i int, e extent) {
	at := b[extentBytes*(1+i):]
	le.PutUint32(at, uint32(e.logical))
	le.PutUint16(at[4:], uint16(e.n))
	le.PutUint16(at[6:], uint16(e.block>>32))
	le.PutUint32(at[8:], uint32(e.block))
}

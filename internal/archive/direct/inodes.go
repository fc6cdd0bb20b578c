package direct

import (
	"context"

	"imagemanager.internal/internal/archive/fstree"
)

const (
	modeFile    = 0o100000
	modeDir     = 0o040000
	modeSymlink = 0o120000

	flagIndexed = 0x1000  // a directory with an index
	flagExtents = 0x80000 // the data are found by extents

	inlineTarget = 59 // bytes of a symbolic link that are kept in the inode
)

// writeInodes writes the inode tables, as far as there are inodes. Of those that mke2fs
// made, only the root directory's changes.
func (w *Writer) writeInodes(ctx context.Context) error {
	count := w.inodes()
	perGroup := w.fs.inodesPerGroup
	const perBlock = blockSize / inodeSize
	for ino := uint32(1); ino <= count; ino += perBlock {
		group, index := (ino-1)/perGroup, (ino-1)%perGroup
		table := w.fs.descriptor(group).block(descInodeTable)
		b, err := w.out.block(ctx, table+uint64(index/perBlock))
		if err != nil {
			return err
		}
		if ino == 1 {
			w.putFirstInodes(b)
		}
		for i := max(ino, firstInode); i < ino+perBlock && i <= count; i++ {
			if err := w.putInode(b[(i-ino)*inodeSize:][:inodeSize], i); err != nil {
				return err
			}
		}
	}
	return nil
}

// putInode fills in an inode of the tree, or of a file beside it.
func (w *Writer) putInode(b []byte, ino uint32) error {
	n := ino - firstInode
	if int(n) >= len(w.order) {
		f := &w.top[int(n)-len(w.order)]
		return w.putNode(b, &f.node, &f.place, nil)
	}
	i := w.order[n]
	return w.nameEntry(i, w.putNode(b, w.plan.Tree.At(i), &w.places[i], w.plan.Tree.Xattrs(i)))
}

func (w *Writer) putNode(b []byte, n *fstree.Node, p *place, xattrs []fstree.Xattr) error {
	inInode, inBlock, err := w.placeXattrs(xattrs)
	if err != nil {
		return err
	}
	mode, size, links, flags := uint16(modeFile), n.Size, p.links, uint32(flagExtents)
	switch n.Kind {
	case fstree.KindDir:
		mode, size = modeDir, int64(p.blocks)*blockSize
		if p.blocks > 1 {
			flags |= flagIndexed
		}
		if links += 2; links > maxLinks {
			links = 1 // the kernel's mark for "many"
		}
	case fstree.KindSymlink:
		mode, size = modeSymlink, int64(len(n.Link))
	}
	if n.Kind == fstree.KindSymlink && p.blocks == 0 {
		flags = 0
		copy(b[0x28:], n.Link)
	} else {
		w.putExtents(b[0x28:], p)
	}
	le.PutUint16(b, mode|n.Mode)
	putHalves(b, 0x02, 0x78, n.UID)
	putHalves(b, 0x18, 0x7a, n.GID)
	putWords(b, 0x04, 0x6c, uint64(size))
	le.PutUint16(b[0x1a:], uint16(links))
	le.PutUint32(b[0x20:], flags)
	w.putTimes(b, n)
	acl := w.xattrBlock(p, inBlock)
	le.PutUint32(b[0x68:], uint32(acl))
	le.PutUint16(b[0x76:], uint16(acl>>32))
	blocks := uint64(p.blocks) + uint64(w.free.leaves(p))
	if acl != 0 {
		blocks++
	}
	sectors := blocks * (blockSize / 512)
	le.PutUint32(b[0x1c:], uint32(sectors))
	le.PutUint16(b[0x74:], uint16(sectors>>32))
	le.PutUint16(b[0x80:], 32) // bytes of fields behind the first 128
	if len(inInode) > 0 {
		le.PutUint32(b[xattrsInInode:], xattrMagic)
		putXattrs(b, xattrsInInode+4, xattrsInInode+4, inInode, false)
	}
	w.putInodeChecksum(b, p.ino)
	return nil
}

// putTimes sets the times of access and modification to that of the entry. The inode was
// made and changed now.
func (w *Writer) putTimes(b []byte, n *fstree.Node) {
	putTime(b, 0x08, 0x8c, n.Sec, n.Nsec)
	putTime(b, 0x10, 0x88, n.Sec, n.Nsec)
	putTime(b, 0x0c, 0x84, w.now.Unix(), int32(w.now.Nanosecond()))
	putTime(b, 0x90, 0x94, w.now.Unix(), int32(w.now.Nanosecond()))
}

// putTime sets a time: 32 bits of seconds, and beside the nanoseconds two more that count
// from the end of a signed number.
func putTime(b []byte, at, more int, sec int64, nsec int32) {
	le.PutUint32(b[at:], uint32(sec))
	le.PutUint32(b[more:], uint32(nsec)<<2|uint32((sec-int64(int32(sec)))>>32)&3)
}

func putHalves(b []byte, low, high int, n uint32) {
	le.PutUint16(b[low:], uint16(n))
	le.PutUint16(b[high:], uint16(n>>16))
}

func putWords(b []byte, low, high int, n uint64) {
	le.PutUint32(b[low:], uint32(n))
	le.PutUint32(b[high:], uint32(n>>32))
}

func (w *Writer) putInodeChecksum(b []byte, ino uint32) {
	putHalves(b, 0x7c, 0x82, 0)
	putHalves(b, 0x7c, 0x82, checksum(w.fs.inodeSeed(ino), b))
}

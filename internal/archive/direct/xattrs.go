package direct

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"imagemanager.internal/internal/archive/fstree"
)

const (
	xattrMagic       = 0xea020000
	xattrEntry       = 16 // bytes, and the name
	xattrBlockHeader = 32
	xattrsInInode    = 128 + 32                          // where they begin: behind the fixed fields
	xattrRoomInInode = inodeSize - xattrsInInode - 4 - 4 // without magic number and end mark
	xattrRoomInBlock = blockSize - xattrBlockHeader - 4
)

// xattrPrefixes are the beginnings of names that ext4 keeps as a number.
var xattrPrefixes = []struct {
	prefix string
	index  byte
}{{"user.", 1}, {"trusted.", 4}, {"security.", 6}}

// xattr is an attribute as it is on the device.
type xattr struct {
	index byte
	name  string // without its prefix
	value []byte
}

func (x *xattr) entryBytes() int { return xattrEntry + (len(x.name)+3)&^3 }
func (x *xattr) valueBytes() int { return (len(x.value) + 3) &^ 3 }

// placeXattrs decides which attributes are kept in the inode and which in a block. Each
// is kept in the inode if there is room, as in the kernel. Both lists are there until it
// is called again.
func (l *layout) placeXattrs(list []fstree.Xattr) (inode, block []xattr, err error) {
	inode, block = l.inInode[:0], l.inBlock[:0]
	inRoom, blockRoom := xattrRoomInInode, xattrRoomInBlock
	for _, from := range list {
		x, ok := newXattr(from)
		need := x.entryBytes() + x.valueBytes()
		switch {
		case !ok:
			return nil, nil, fmt.Errorf("attribute %q: %w", from.Name, ErrUnsupported)
		case need <= inRoom:
			inRoom -= need
			inode = append(inode, x)
		case need <= blockRoom:
			blockRoom -= need
			block = append(block, x)
		default:
			return nil, nil, fmt.Errorf("attribute %q has no room: %w", from.Name, ErrUnsupported)
		}
	}
	slices.SortFunc(block, func(a, b xattr) int { // the kernel searches by this order
		return cmp.Or(cmp.Compare(a.index, b.index), cmp.Compare(len(a.name), len(b.name)), cmp.Compare(a.name, b.name))
	})
	l.inInode, l.inBlock = inode, block
	return inode, block, nil
}

func newXattr(from fstree.Xattr) (xattr, bool) {
	for _, p := range xattrPrefixes {
		if name, ok := strings.CutPrefix(from.Name, p.prefix); ok && name != "" && len(name) <= 255 {
			return xattr{p.index, name, from.Value}, true
		}
	}
	return xattr{}, false
}

// writeXattrs writes the block of an inode's attributes, if it needs one.
func (w *Writer) writeXattrs(ctx context.Context, p *place, list []fstree.Xattr) error {
	_, inBlock, err := w.placeXattrs(list)
	block := w.xattrBlock(p, inBlock)
	if err != nil || block == 0 {
		return err
	}
	b, err := w.out.block(ctx, block)
	if err != nil {
		return err
	}
	le.PutUint32(b, xattrMagic)
	le.PutUint32(b[4:], 1) // inodes that use it
	le.PutUint32(b[8:], 1) // blocks
	le.PutUint32(b[12:], putXattrs(b, xattrBlockHeader, 0, inBlock, true))
	le.PutUint32(b[16:], checksum(w.fs.seed, le.AppendUint64(nil, block), b))
	return nil
}

// xattrBlock returns the block of an inode's attributes, or 0 if it needs none.
func (l *layout) xattrBlock(p *place, inBlock []xattr) uint64 {
	if len(inBlock) == 0 {
		return 0
	}
	return l.free.block(uint64(p.start) + uint64(p.blocks) + uint64(l.free.leaves(p)))
}

// putXattrs fills in attributes: entries from an offset on, and values from the end of b.
// Values are counted from base. Only those in a block have hashes. It returns the hash of
// all.
func putXattrs(b []byte, at, base int, list []xattr, hashed bool) (all uint32) {
	end := len(b)
	for i := range list {
		x := &list[i]
		e := b[at:]
		e[0], e[1] = byte(len(x.name)), x.index
		if len(x.value) > 0 {
			end -= x.valueBytes()
			copy(b[end:], x.value)
			le.PutUint16(e[2:], uint16(end-base))
		}
		le.PutUint32(e[8:], uint32(len(x.value)))
		copy(e[xattrEntry:], x.name)
		if hashed {
			hash := xattrHash(x.name, b[end:][:x.valueBytes()])
			le.PutUint32(e[12:], hash)
			all = all<<16 ^ all>>16 ^ hash
		}
		at += x.entryBytes()
	}
	return all
}

// xattrHash returns the hash of an attribute in a block. value is padded with zeros to
// whole words. Source: ext4_xattr_hash_entry.
func xattrHash(name string, value []byte) (hash uint32) {
	for i := range len(name) {
		hash = hash<<5 ^ hash>>27 ^ uint32(name[i])
	}
	for ; len(value) > 0; value = value[4:] {
		hash = hash<<16 ^ hash>>16 ^ le.Uint32(value)
	}
	return hash
}

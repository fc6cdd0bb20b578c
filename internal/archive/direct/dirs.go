package direct

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"imagemanager.internal/internal/archive/fstree"
)

// The types of directory entries.
const (
	typeFile    = 1
	typeDir     = 2
	typeSymlink = 7
)

const (
	dirTail     = 12 // bytes at the end of a block, for its checksum
	dirRoom     = blockSize - dirTail
	dotBytes    = 12 // of "." and of ".."
	indexBytes  = 8  // of an entry of an index
	indexHeader = 2*dotBytes + 8
	indexInRoot = (blockSize - indexHeader - indexBytes) / indexBytes
	indexInNode = (blockSize - 2*indexBytes) / indexBytes
)

// errLayout is a defect: a directory has become another since it was laid out.
var errLayout = errors.New("the layout has changed")

// dirEntry is a name in a directory.
type dirEntry struct {
	name string
	ino  uint32
	hash uint32
	kind byte
}

func (e *dirEntry) bytes() int { return (8 + len(e.name) + 3) &^ 3 }

// writeDirs writes the blocks of all directories of the tree.
func (w *Writer) writeDirs(ctx context.Context) error {
	for _, i := range w.order {
		if w.plan.Tree.At(i).Kind == fstree.KindDir {
			if err := w.nameEntry(i, w.writeDir(ctx, i)); err != nil {
				return err
			}
		}
	}
	w.list = nil
	return nil
}

func (w *Writer) writeDir(ctx context.Context, dir fstree.ID) error {
	d, p := w.directory(dir), &w.places[dir]
	if blocks, err := d.split(); err != nil || blocks != int(p.blocks) {
		return cmp.Or(err, errLayout)
	}
	next := uint64(p.start)
	err := d.write(func() ([]byte, error) {
		next++
		return w.out.block(ctx, w.free.block(next-1))
	})
	if err != nil {
		return err
	}
	if err := w.writeLeaves(ctx, p); err != nil {
		return err
	}
	return w.writeXattrs(ctx, p, w.plan.Tree.Xattrs(dir))
}

// directory returns a directory of the tree.
func (l *layout) directory(dir fstree.ID) *directory {
	parent := uint32(rootInode)
	if dir != l.plan.Root {
		parent = l.places[l.plan.Tree.At(dir).Parent].ino
	}
	return l.newDirectory(l.places[dir].ino, parent, l.entries(dir))
}

// entries lists what is in a directory of the tree, until it is called again: a list for
// each directory would be most of the memory that this package takes.
func (l *layout) entries(dir fstree.ID) []dirEntry {
	t, n := l.plan.Tree, 0
	for range t.Children(dir) {
		n++
	}
	list := slices.Grow(l.list[:0], n)
	for i := range t.Children(dir) {
		inode := t.Inode(i)
		e := dirEntry{name: t.At(i).Name, ino: l.places[inode].ino, kind: typeFile}
		switch t.At(inode).Kind {
		case fstree.KindSkipped:
			continue
		case fstree.KindDir:
			e.kind = typeDir
		case fstree.KindSymlink:
			e.kind = typeSymlink
		}
		list = append(list, e)
	}
	l.list = list
	return list
}

// directory is the layout of a directory. With one block it is a list. With more it is a
// tree by the hash of names: block 0 is the root, index nodes follow if one block is not
// enough for it, and then leaves.
type directory struct {
	ino, parent uint32
	seed        uint32 // of checksums
	hash        nameHash
	list        []dirEntry
	leaves      []leaf
	nodes       int
}

// leaf is the end of its entries in the list, and the hash it begins with. The lowest bit
// of that is set if the leaf before ends with the same hash.
type leaf struct {
	end  int
	hash uint32
}

func (l *layout) newDirectory(ino, parent uint32, list []dirEntry) *directory {
	return &directory{ino: ino, parent: parent, seed: l.fs.inodeSeed(ino), hash: l.fs.hash, list: list}
}

// split decides which entry goes into which block. It returns the number of blocks.
func (d *directory) split() (blocks int, err error) {
	size := 2 * dotBytes
	for i := range d.list {
		size += d.list[i].bytes()
	}
	if size <= dirRoom {
		return 1, nil
	}
	for i := range d.list {
		d.list[i].hash = d.hash.of(d.list[i].name)
	}
	slices.SortFunc(d.list, func(a, b dirEntry) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.name, b.name))
	})
	d.leaves = []leaf{{}}
	room := dirRoom
	for i := range d.list {
		e := &d.list[i]
		if e.bytes() > room {
			next := leaf{hash: e.hash}
			if d.list[i-1].hash == e.hash {
				next.hash |= 1
			}
			d.leaves = append(d.leaves, next)
			room = dirRoom
		}
		room -= e.bytes()
		d.leaves[len(d.leaves)-1].end = i + 1
	}
	if len(d.leaves) > indexInRoot {
		d.nodes = (len(d.leaves) + indexInNode - 1) / indexInNode
	}
	if d.nodes > indexInRoot {
		return 0, fmt.Errorf("%d names in a directory: %w", len(d.list), ErrUnsupported)
	}
	return 1 + d.nodes + len(d.leaves), nil
}

// write fills in the blocks of the directory, in their order. next returns the next one,
// zeroed.
func (d *directory) write(next func() ([]byte, error)) error {
	b, err := next()
	if err != nil {
		return err
	}
	if d.leaves == nil {
		dots := []dirEntry{{name: ".", ino: d.ino, kind: typeDir}, {name: "..", ino: d.parent, kind: typeDir}}
		d.putList(b, dots, d.list)
		return nil
	}
	d.putRoot(b)
	for n := range d.nodes {
		if b, err = next(); err != nil {
			return err
		}
		first := n * indexInNode
		le.PutUint16(b[4:], blockSize) // one empty entry over the whole block
		d.putIndex(b, indexBytes, indexInNode, min(indexInNode, len(d.leaves)-first), func(i int) (uint32, int) {
			return d.leaves[first+i].hash, 1 + d.nodes + first + i
		})
	}
	from := 0
	for _, l := range d.leaves {
		if b, err = next(); err != nil {
			return err
		}
		d.putList(b, d.list[from:l.end])
		from = l.end
	}
	return nil
}

// putRoot fills in the root of the index.
func (d *directory) putRoot(b []byte) {
	putEntry(b, &dirEntry{name: ".", ino: d.ino, kind: typeDir}, dotBytes)
	putEntry(b[dotBytes:], &dirEntry{name: "..", ino: d.parent, kind: typeDir}, blockSize-dotBytes)
	b[2*dotBytes+4], b[2*dotBytes+5] = halfMD4, 8 // the hash, and the bytes of this header
	if d.nodes == 0 {
		d.putIndex(b, indexHeader, indexInRoot, len(d.leaves), func(i int) (uint32, int) {
			return d.leaves[i].hash, 1 + i
		})
		return
	}
	b[2*dotBytes+6] = 1 // level between this block and the leaves
	d.putIndex(b, indexHeader, indexInRoot, d.nodes, func(i int) (uint32, int) {
		return d.leaves[i*indexInNode].hash, 1 + i
	})
}

// putIndex fills in an index of count entries at an offset, with its checksum. The first
// entry has no hash: limit and count are in its place.
func (d *directory) putIndex(b []byte, at, limit, count int, entry func(i int) (hash uint32, block int)) {
	for i := range count {
		hash, block := entry(i)
		le.PutUint32(b[at+indexBytes*i:], hash)
		le.PutUint32(b[at+indexBytes*i+4:], uint32(block))
	}
	le.PutUint16(b[at:], uint16(limit))
	le.PutUint16(b[at+2:], uint16(count))
	tail := b[at+indexBytes*limit:]
	le.PutUint32(tail[4:], checksum(d.seed, b[:at+indexBytes*count], tail[:4], []byte{0, 0, 0, 0}))
}

// putList fills in a block of entries, with its checksum. The last entry reaches to the
// end.
func (d *directory) putList(b []byte, lists ...[]dirEntry) {
	at, last := 0, 0
	for _, list := range lists {
		for i := range list {
			last = at
			putEntry(b[at:], &list[i], list[i].bytes())
			at += list[i].bytes()
		}
	}
	le.PutUint16(b[last+4:], uint16(dirRoom-last))
	le.PutUint16(b[dirRoom+4:], dirTail)
	b[dirRoom+7] = 0xde // an entry of this type is the checksum
	le.PutUint32(b[dirRoom+8:], checksum(d.seed, b[:dirRoom]))
}

func putEntry(b []byte, e *dirEntry, length int) {
	le.PutUint32(b, e.ino)
	le.PutUint16(b[4:], uint16(length))
	b[6], b[7] = byte(len(e.name)), e.kind
	copy(b[8:], e.name)
}

package direct

import (
	"context"
	"fmt"
	"math"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/archive/fstree"
)

// layout says where on the device everything will be. It is computed before anything is
// written, from the sizes in the tree.
type layout struct {
	fs     *filesystem
	plan   *archive.Plan
	free   *space
	places []place     // by node, of those with an inode of their own
	order  []fstree.ID // nodes by inode number, from firstInode on
	list   []dirEntry  // of the directory at hand
	top    []topFile   // files beside the tree; their inodes are behind those of the tree

	inInode, inBlock []xattr // of the inode at hand
}

// place is where an inode and its blocks are. In the space there are the blocks of its
// data, then those of its extent tree, and then one for its attributes: mostly there are
// none of the latter two.
type place struct {
	ino    uint32
	links  uint32 // names of a file; subdirectories of a directory
	start  uint32 // first block in the space
	blocks uint32 // of data
}

// topFile is a file beside the tree, with its data in memory.
type topFile struct {
	node  fstree.Node
	data  []byte
	place place
}

func newLayout(fs *filesystem, plan *archive.Plan) *layout {
	return &layout{fs: fs, plan: plan, free: newSpace(fs), places: make([]place, plan.Tree.Len())}
}

// layOut gives every inode its number and its blocks: directories first, so that whoever
// walks the tree reads them in a row, then files in the order of the archive. The error
// is ErrUnsupported, ErrNoRoom, EMLINK, or the cause of ctx.
func (l *layout) layOut(ctx context.Context) error {
	l.order = make([]fstree.ID, 0, l.plan.Entries)
	if err := l.numberDir(ctx, l.plan.Root); err != nil {
		return err
	}
	const topFiles = 2
	if last := firstInode + uint64(len(l.order)) + topFiles; last > l.fs.inodes() {
		return fmt.Errorf("%d inodes, the file system has %d: %w", last, l.fs.inodes(), ErrNoRoom)
	}
	for _, i := range l.order {
		if l.plan.Tree.At(i).Kind != fstree.KindDir {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		blocks, err := l.directory(i).split()
		if err == nil {
			err = l.takeBlocks(&l.places[i], int64(blocks), l.plan.Tree.Xattrs(i))
		}
		if err != nil {
			return l.nameEntry(i, err)
		}
	}
	if err := l.plan.Tree.Each(ctx, l.placeFile); err != nil {
		return err
	}
	if l.plan.Config != nil {
		if err := l.addTopFile(archive.ConfigName, archive.ConfigMode, l.plan.Config); err != nil {
			return err
		}
	}
	return l.free.reserve(uint64(blocksFor(archive.MaxSealRecord))) // the record is not there yet
}

// numberDir gives inode numbers to a directory and its files, and then to what is in its
// directories.
func (l *layout) numberDir(ctx context.Context, dir fstree.ID) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	l.giveInode(dir)
	t := l.plan.Tree
	for i := range t.Children(dir) {
		switch t.At(i).Kind {
		case fstree.KindDir:
			l.places[dir].links++
		case fstree.KindFile, fstree.KindSymlink, fstree.KindHardlink:
			if err := l.countName(t.Inode(i)); err != nil {
				return l.nameEntry(i, err)
			}
		case fstree.KindSkipped:
		default:
			return l.nameEntry(i, ErrUnsupported) // Check accepts no other kind
		}
	}
	for i := range t.Children(dir) {
		if t.At(i).Kind == fstree.KindDir {
			if err := l.numberDir(ctx, i); err != nil {
				return err
			}
		}
	}
	return nil
}

// countName counts one more name of a file or symbolic link.
func (l *layout) countName(inode fstree.ID) error {
	p := &l.places[inode]
	if p.ino == 0 {
		l.giveInode(inode)
	}
	if p.links++; p.links > maxLinks {
		return unix.EMLINK
	}
	return nil
}

func (l *layout) giveInode(i fstree.ID) {
	l.places[i].ino = firstInode + uint32(len(l.order))
	l.order = append(l.order, i)
}

// placeFile takes the blocks of a file or symbolic link.
func (l *layout) placeFile(i fstree.ID) error {
	n, p := l.plan.Tree.At(i), &l.places[i]
	switch {
	case p.ino == 0:
		return nil
	case n.Kind == fstree.KindFile:
		return l.nameEntry(i, l.takeBlocks(p, blocksFor(n.Size), l.plan.Tree.Xattrs(i)))
	case n.Kind == fstree.KindSymlink && len(n.Link) > inlineTarget:
		return l.nameEntry(i, l.takeBlocks(p, blocksFor(int64(len(n.Link))), nil))
	}
	return nil
}

// takeBlocks takes the blocks of an inode.
func (l *layout) takeBlocks(p *place, blocks int64, xattrs []fstree.Xattr) error {
	start, err := l.free.take(uint64(blocks))
	if err != nil {
		return err
	}
	if l.free.taken > math.MaxUint32 {
		return fmt.Errorf("more than %d blocks: %w", uint32(math.MaxUint32), ErrUnsupported)
	}
	p.start, p.blocks = uint32(start), uint32(blocks)
	beside := uint64(l.free.leaves(p))
	if beside > extentsInInode {
		return fmt.Errorf("%d blocks of extents: %w", beside, ErrUnsupported)
	}
	_, inBlock, err := l.placeXattrs(xattrs)
	if err != nil {
		return err
	}
	if len(inBlock) > 0 {
		beside++
	}
	_, err = l.free.take(beside)
	return err
}

// addTopFile takes the inode and the blocks of a file beside the tree.
func (l *layout) addTopFile(name string, mode uint16, data []byte) error {
	f := topFile{node: fstree.Node{Name: name, Kind: fstree.KindFile, Mode: mode, Size: int64(len(data))}, data: data}
	f.place.ino, f.place.links = l.inodes()+1, 1
	if err := l.takeBlocks(&f.place, blocksFor(f.node.Size), nil); err != nil {
		return err
	}
	l.top = append(l.top, f)
	return nil
}

// inodes returns the number of the last inode in use.
func (l *layout) inodes() uint32 { return firstInode - 1 + uint32(len(l.order)+len(l.top)) }

// nameEntry adds the entry's name to an error.
func (l *layout) nameEntry(i fstree.ID, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("write %q: %w", fstree.TruncateName(l.plan.Tree.Path(fstree.Root, i)), err)
}

func blocksFor(bytes int64) int64 { return (bytes + blockSize - 1) / blockSize }

package archive

import (
	"context"
	"io"
	"os"
	"syscall"

	"imagemanager.internal/internal/archive/fstree"
)

// Plan is a checked archive: the finished tree, and what it needs. One writer at a time
// may use it.
type Plan struct {
	Shape       Shape
	Policy      Policy
	Entries     int            // names to be written, the root included
	Bytes       int64          // of all files together, each file counted once
	Layers      []Layer        // of the image, lowest first; none for a bundle or a plain root file system
	Adjusted    int            // number of changes that the policy made
	AdjustedBy  map[Reason]int // the same, by rule
	Adjustments []Adjustment   // the first 2,000 of them, in the archive's order
	Config      []byte         // the image's configuration (JSON), kept as /image.json; nil without layers

	Tree *fstree.Tree // every node below Root is to be written, except skipped and gone ones
	Root fstree.ID    // of the root file system in the tree

	stamp  stamp
	blocks int64 // file system blocks of data, directories and attributes
}

// Layer is a layer of an image.
type Layer struct {
	Digest string // "sha256:…"
	Size   int64  // bytes
}

// Unchanged reports whether src is the file that was checked, with the same size and
// times. For a source other than a file it is always true.
func (p *Plan) Unchanged(src io.ReaderAt) bool { return p.stamp == stampOf(src) }

// Sizes in ext4 as mkfs.ext4 makes it by default on devices of 512 MiB and more, and with
// -b 4096 -i 16384 on all.
const (
	blockBytes    = 4096
	inodeBytes    = 256
	bytesPerInode = 16384 // mke2fs.conf, inode_ratio
	reservedInode = 16
	groupBytes    = 128 << 20
	inlineSymlink = 59 // longest target in bytes that is kept in the inode
)

// measure adds up the needs of the tree.
func (p *Plan) measure(ctx context.Context) error {
	dirBytes := make(map[fstree.ID]int64)
	err := p.Tree.Each(ctx, func(i fstree.ID) error { p.addNeeds(i, dirBytes); return nil })
	for _, n := range dirBytes {
		p.blocks += 2 * blocksFor(n) // hashed directories are half full at worst
	}
	p.blocks += blocksFor(int64(len(p.Config)))
	return err
}

// addNeeds adds the needs of a node. The bytes of its name go to dirBytes of its
// directory.
func (p *Plan) addNeeds(i fstree.ID, dirBytes map[fstree.ID]int64) {
	t := p.Tree
	n := t.At(i)
	if n.Gone && !n.StillLinked || n.Kind == fstree.KindSkipped || !t.Within(p.Root, i) {
		return
	}
	if !n.Gone {
		p.Entries++
	}
	if !n.Gone && i != p.Root {
		dirBytes[n.Parent] += int64(8+len(n.Name)+3) &^ 3
	}
	switch {
	case n.Kind == fstree.KindFile:
		p.Bytes += n.Size
		p.blocks += blocksFor(n.Size)
	case n.Kind == fstree.KindSymlink && len(n.Link) > inlineSymlink:
		p.blocks++
	case n.Kind == fstree.KindDir:
		p.blocks++
	}
	if len(t.Xattrs(i)) > 0 {
		p.blocks++
	}
}

func blocksFor(bytes int64) int64 { return (bytes + blockBytes - 1) / blockBytes }

// DeviceBytes returns the size of a device whose ext4 file system can hold the tree. It
// counts data, directories, inodes (one for every 16 KiB of the device), the journal,
// bitmaps, and a margin of one percent. The size is a multiple of 1 MiB.
func (p *Plan) DeviceBytes() int64 {
	need := p.blocks * blockBytes
	size := max(int64(p.Entries+reservedInode)*bytesPerInode, need, 16<<20)
	for { // overhead and size depend on each other; they converge in a few rounds
		next := max(size, need+overhead(size))
		if next == size {
			break
		}
		size = next
	}
	const mib = 1 << 20
	return (size + mib - 1) / mib * mib
}

// PoolBytes estimates the bytes of a thin pool that the tree takes: written data in
// chunks of 64 KiB, and the file system's own blocks. With many small files it is much
// less than DeviceBytes.
func (p *Plan) PoolBytes() int64 {
	written := p.blocks*blockBytes + int64(p.Entries)*inodeBytes
	return written + written/20 + 8<<20
}

// overhead returns the bytes that ext4 itself takes of a device. While it is mounted, it
// keeps a fiftieth of the device, at most 16 MiB, for splitting extents. Source: ext4
// driver, ext4_calculate_resv_clusters.
func overhead(size int64) int64 {
	inodes := size / bytesPerInode * inodeBytes
	groups := size/groupBytes + 1
	reserved := min(size/50, 4096*blockBytes)
	return inodes + journalBytes(size) + groups*4*blockBytes + reserved + size/100 + 1<<20
}

// journalBytes returns the size of mke2fs's default journal. Source: e2fsprogs,
// lib/ext2fs/mkjournal.c.
func journalBytes(size int64) int64 {
	switch {
	case size < 128<<20:
		return 4 << 20
	case size < 1<<30:
		return 16 << 20
	case size < 2<<30:
		return 32 << 20
	case size < 16<<30:
		return 64 << 20
	case size < 32<<30:
		return 128 << 20
	case size < 64<<30:
		return 256 << 20
	}
	return 1 << 30
}

// stamp identifies the state of a file by its metadata, to notice a change between the
// passes. Not promised: a change with the same size and times is not noticed. The caller
// keeps others from the file.
type stamp struct {
	known              bool
	size, mtime, ctime int64
	inode              uint64
}

// stampOf returns the zero stamp for a source other than a file.
func stampOf(src io.ReaderAt) stamp {
	f, ok := src.(interface{ Stat() (os.FileInfo, error) })
	if !ok {
		return stamp{}
	}
	info, err := f.Stat()
	if err != nil {
		return stamp{}
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return stamp{}
	}
	return stamp{true, info.Size(), st.Mtim.Nano(), st.Ctim.Nano(), st.Ino}
}

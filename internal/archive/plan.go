package archive

import (
	"context"
	"io"
	"os"
	"syscall"
)

// Plan is a checked archive: the finished tree, in memory. It is used for one Extract at
// a time.
type Plan struct {
	Shape       Shape
	Policy      Policy
	Entries     int          // names that will be written, the root included
	Bytes       int64        // of all files together, each counted once
	Layers      int          // of the image; 0 for a bundle or a plain root file system
	Adjusted    int          // changes that the policy made
	Adjustments []Adjustment // the first 2,000 of them, in the archive's order
	Config      []byte       // the image's configuration (JSON), kept as /image.json; nil without layers

	tree   *tree
	root   id
	stamp  stamp
	blocks int64 // file system blocks of data, directories and attributes
}

// Sizes of ext4 as mkfs.ext4 makes it for devices from 512 MiB, and as -b 4096 -i 16384
// does for all.
const (
	blockBytes    = 4096
	inodeBytes    = 256
	bytesPerInode = 16384 // mke2fs.conf, inode_ratio
	reservedInode = 16
	groupBytes    = 128 << 20
	inlineSymlink = 59 // bytes of a target that fit the inode
)

// measure sums up what the tree needs.
func (p *Plan) measure(ctx context.Context) error {
	dirBytes := make(map[id]int64)
	err := p.tree.each(ctx, func(i id) error { p.count(i, dirBytes); return nil })
	for _, n := range dirBytes {
		p.blocks += 2 * blocksOf(n) // hashed directories are half full at worst
	}
	p.blocks += blocksOf(int64(len(p.Config)))
	return err
}

// count adds what a node needs, its name in dirBytes.
func (p *Plan) count(i id, dirBytes map[id]int64) {
	t := p.tree
	n := t.at(i)
	if n.gone && !n.held || n.kind == kindSkipped || !t.within(p.root, i) {
		return
	}
	if !n.gone {
		p.Entries++
	}
	if !n.gone && i != p.root {
		dirBytes[n.parent] += int64(8+len(n.name)+3) &^ 3
	}
	switch {
	case n.kind == kindFile:
		p.Bytes += n.size
		p.blocks += blocksOf(n.size)
	case n.kind == kindSymlink && len(n.link) > inlineSymlink:
		p.blocks++
	case n.kind == kindDir:
		p.blocks++
	}
	if len(t.xattrs[i]) > 0 {
		p.blocks++
	}
}

func blocksOf(n int64) int64 { return (n + blockBytes - 1) / blockBytes }

// DeviceBytes is how large a device must be whose ext4 file system takes the tree: data,
// directories, inodes (one for every 16 KiB of the device), journal, bitmaps, and a
// margin of a hundredth. It is a multiple of 1 MiB.
func (p *Plan) DeviceBytes() int64 {
	need := p.blocks * blockBytes
	size := max(int64(p.Entries+reservedInode)*bytesPerInode, need, 16<<20)
	for { // overhead depends on the size and the size on the overhead; it converges in a few rounds
		next := max(size, need+overhead(size))
		if next == size {
			break
		}
		size = next
	}
	const mib = 1 << 20
	return (size + mib - 1) / mib * mib
}

// PoolBytes is about how much of a thin pool the tree takes: what is written, in chunks
// of 64 KiB, with the file system's own blocks. It is much less than DeviceBytes where
// the files are small and many.
func (p *Plan) PoolBytes() int64 {
	written := p.blocks*blockBytes + int64(p.Entries)*inodeBytes
	return written + written/20 + 8<<20
}

// overhead is what ext4 itself takes of a device.
func overhead(size int64) int64 {
	inodes := size / bytesPerInode * inodeBytes
	groups := size/groupBytes + 1
	return inodes + journalBytes(size) + groups*4*blockBytes + size/100 + 1<<20
}

// journalBytes is the journal that mke2fs makes by default. Source: e2fsprogs,
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

// stamp is what the file's metadata say; it is how a change between the passes is
// noticed. Not promised: that a change is noticed which leaves size and times as they
// were. The caller keeps the file from others.
type stamp struct {
	known              bool
	size, mtime, ctime int64
	inode              uint64
}

// stampOf is empty for a source that is no file.
func stampOf(src io.ReaderAt) stamp {
	f, ok := src.(*os.File)
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

func (s stamp) same(src io.ReaderAt) bool { return s == stampOf(src) }

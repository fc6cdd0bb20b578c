package direct

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"imagemanager.internal/internal/archive"
)

// rootDirectory is the root directory that mke2fs made.
type rootDirectory struct {
	inodes []byte // the first block of inodes: its own is among them
	block  uint64 // its entries
}

var errNotRoot = errors.New("the root directory has more than lost+found, or another form")

// readRoot reads the root directory's inode, and those beside it.
func (fs *filesystem) readRoot() (rootDirectory, error) {
	b, err := fs.read(fs.descriptor(0).block(descInodeTable), 1)
	if err != nil {
		return rootDirectory{}, err
	}
	inode := b[(rootInode-1)*inodeSize:][:inodeSize]
	header := inode[0x28:]
	if le.Uint16(inode) != modeDir|0o755 || le.Uint16(inode[0x1a:]) != 3 || le.Uint32(inode[4:]) != blockSize ||
		le.Uint32(inode[0x64:]) != 0 || le.Uint16(header) != extentMagic || le.Uint16(header[2:]) != 1 ||
		le.Uint16(header[6:]) != 0 {
		return rootDirectory{}, fmt.Errorf("%w: %w", errNotRoot, ErrNotNew)
	}
	block := uint64(le.Uint32(header[extentBytes+8:])) | uint64(le.Uint16(header[extentBytes+6:]))<<32
	return rootDirectory{b, block}, nil
}

// writeRoot writes the block of the root directory again, with the names beside
// lost+found.
func (w *Writer) writeRoot(ctx context.Context) error {
	entries := []dirEntry{
		{name: "lost+found", ino: lostFoundInode, kind: typeDir},
		{name: archive.RootName, ino: w.places[w.plan.Root].ino, kind: typeDir},
	}
	for _, f := range w.top {
		entries = append(entries, dirEntry{name: f.node.Name, ino: f.place.ino, kind: typeFile})
	}
	d := w.newDirectory(rootInode, rootInode, entries)
	if blocks, err := d.split(); err != nil || blocks != 1 {
		return cmp.Or(err, errLayout)
	}
	return d.write(func() ([]byte, error) { return w.out.block(ctx, w.fs.root.block) })
}

// putFirstInodes copies the inodes of mke2fs, and changes the root directory's: there is
// one more directory in it.
func (w *Writer) putFirstInodes(b []byte) {
	copy(b, w.fs.root.inodes[:(firstInode-1)*inodeSize])
	root := b[(rootInode-1)*inodeSize:][:inodeSize]
	le.PutUint16(root[0x1a:], 4)
	sec, nsec := w.now.Unix(), int32(w.now.Nanosecond())
	putTime(root, 0x0c, 0x84, sec, nsec)
	putTime(root, 0x10, 0x88, sec, nsec)
	w.putInodeChecksum(root, rootInode)
}

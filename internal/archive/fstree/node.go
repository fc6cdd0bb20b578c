package fstree

import (
	"errors"
	"io"
)

// Kind is what a node is.
type Kind uint8

// The kinds of nodes. A tree to be written has only directories, files, symbolic links,
// hard links and skipped nodes.
const (
	KindDir Kind = iota
	KindFile
	KindSymlink
	KindHardlink
	KindDevice
	KindFIFO
	KindOverlay // a whiteout of overlayfs
	KindSkipped // not to be written; its name stays taken
)

// String returns what the field calls the kind.
func (k Kind) String() string {
	return [...]string{
		"directory", "file", "symbolic link", "hard link", "device", "named pipe", "overlay whiteout", "skipped entry",
	}[k]
}

// Node is one name of a tree. It has no maps and no slices: there may be a hundred
// thousand.
type Node struct {
	Name        string
	Link        string // target of a symbolic link; change it with Tree.SetLink
	Data        int64  // offset of the file's data in the archive
	Size        int64  // bytes of the file's data
	Sec         int64  // time of modification, with Nsec
	UID         uint32
	GID         uint32
	Nsec        int32
	Index       int32 // number of the entry in its tarball, from 0
	Parent      ID
	first       ID // child
	last        ID // child
	next        ID // sibling
	Target      ID // the file or symbolic link that a hard link names
	Names       uint32
	Mode        uint16 // 0..07777
	Kind        Kind
	Layer       uint8 // the last layer with an entry here or below, from 1; 0 without layers
	EntryLayer  uint8 // the layer of Index, Data and the attributes
	Gone        bool  // hidden by an upper layer
	StillLinked bool  // gone, but a visible hard link has its content
}

// ReadData reads len(p) bytes of a file's data from the archive, beginning at offset off
// of the file. If the archive ends too early, the error is io.ErrUnexpectedEOF.
func (n *Node) ReadData(archive io.ReaderAt, p []byte, off int64) error {
	got, err := archive.ReadAt(p, n.Data+off)
	switch {
	case got == len(p):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	}
	return err
}

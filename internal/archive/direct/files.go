package direct

import (
	"context"
	"crypto/sha256"

	"imagemanager.internal/internal/archive/fstree"
)

// emptySum is the SHA-256 of no data.
var emptySum = sha256.Sum256(nil)

// writeFiles writes the data of files and symbolic links, in the order of the archive.
func (w *Writer) writeFiles(ctx context.Context) error {
	var sums [][sha256.Size]byte // of the next files: few allocations for many of them
	return w.plan.Tree.Each(ctx, func(i fstree.ID) error {
		n, p := w.plan.Tree.At(i), &w.places[i]
		switch {
		case p.ino == 0:
			return nil
		case n.Kind == fstree.KindSymlink:
			return w.writeBytes(ctx, p, []byte(n.Link))
		case n.Kind == fstree.KindFile:
			if w.sums[i] = &emptySum; n.Size > 0 {
				if len(sums) == 0 {
					sums = make([][sha256.Size]byte, 1024)
				}
				w.sums[i], sums = &sums[0], sums[1:]
			}
			return w.nameEntry(i, w.writeFile(ctx, i))
		}
		return nil
	})
}

// writeFile copies a file's data from the archive to the device. Their digest is there
// when the stream's hashes are.
func (w *Writer) writeFile(ctx context.Context, i fstree.ID) error {
	n, p, sum := w.plan.Tree.At(i), &w.places[i], w.sums[i]
	done := int64(0)
	for e := range w.free.extents(uint64(p.start), uint64(p.blocks)) {
		for at, end := e.block, e.block+uint64(e.n); at < end; {
			b, err := w.out.reserve(ctx, at, end-at)
			if err != nil {
				return err
			}
			data := b[:min(int64(len(b)), n.Size-done)]
			if err := n.ReadData(w.ahead, data, done); err != nil {
				return err
			}
			clear(b[len(data):])
			done += int64(len(data))
			at += uint64(len(b) / blockSize)
			w.out.hash(data, sum, done == n.Size)
			w.advance(len(data))
		}
	}
	if err := w.writeLeaves(ctx, p); err != nil {
		return err
	}
	return w.writeXattrs(ctx, p, w.plan.Tree.Xattrs(i))
}

// writeBytes writes data from memory into the blocks of an inode, if it has any.
func (w *Writer) writeBytes(ctx context.Context, p *place, data []byte) error {
	for k := range uint64(p.blocks) {
		b, err := w.out.block(ctx, w.free.block(uint64(p.start)+k))
		if err != nil {
			return err
		}
		data = data[copy(b, data):]
	}
	return w.writeLeaves(ctx, p)
}

// writeTopFiles writes the data of the files beside the tree.
func (w *Writer) writeTopFiles(ctx context.Context) error {
	for i := range w.top {
		if err := w.writeBytes(ctx, &w.top[i].place, w.top[i].data); err != nil {
			return err
		}
	}
	return nil
}

// advance reports progress.
func (w *Writer) advance(n int) {
	w.copied += int64(n)
	if w.options.Progress != nil {
		w.options.Progress(w.copied)
	}
}

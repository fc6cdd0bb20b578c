package extract

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/archive/fstree"
	"imagemanager.internal/internal/failpoint"
)

// writer writes one tree. One goroutine makes all names; workers write the contents.
type writer struct {
	src     io.ReaderAt
	tree    *fstree.Tree
	root    fstree.ID
	sums    []*[32]byte // of files, by the ID of their inode
	workers *workerPool

	early  writeBack
	made   map[fstree.ID]fstree.ID // by inode with several names: the name made first
	topDir int                     // descriptor of rootfs/

	mu       sync.Mutex // guards written, and is held while progress is called
	written  int64
	progress func(int64)
}

// directory is a directory that is being filled. Its attributes come last, as filling it
// would change them: whoever finishes the last entry sets them.
type directory struct {
	fd      int
	node    fstree.ID
	name    string
	parent  *directory // nil for rootfs/
	above   int        // descriptor of the directory it is in
	pending atomic.Int32
}

func (w *writer) writeRoot(ctx context.Context, above int) error {
	d, err := w.makeDir(w.root, archive.RootName, nil, above)
	if err != nil {
		return err
	}
	w.topDir = d.fd
	failpoint.Here("amid", "extract")
	return w.fillDir(ctx, d)
}

// makeDir makes a directory and opens it. Until fillDir returns, it counts as pending in
// itself.
func (w *writer) makeDir(node fstree.ID, name string, parent *directory, above int) (*directory, error) {
	if err := mkdirAt(above, name); err != nil {
		return nil, w.nameEntry(node, err)
	}
	fd, err := openDir(above, name)
	if err != nil {
		return nil, w.nameEntry(node, err)
	}
	d := &directory{fd: fd, node: node, name: name, parent: parent, above: above}
	d.pending.Store(1)
	if parent != nil {
		parent.pending.Add(1)
	}
	return d, nil
}

// fillDir makes the entries of a directory, in the order of the archive and so of the
// data to be read.
func (w *writer) fillDir(ctx context.Context, d *directory) (err error) {
	defer func() { err = errors.Join(err, w.release(d)) }()
	for i := range w.tree.Children(d.node) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := w.makeEntry(ctx, d, i); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) makeEntry(ctx context.Context, d *directory, i fstree.ID) error {
	n := w.tree.At(i)
	switch n.Kind {
	case fstree.KindDir:
		sub, err := w.makeDir(i, n.Name, d, d.fd)
		if err != nil {
			return err
		}
		return w.fillDir(ctx, sub)
	case fstree.KindSymlink:
		return w.nameEntry(i, makeSymlink(d.fd, n))
	case fstree.KindFile, fstree.KindHardlink:
		return w.makeFile(ctx, d, i)
	case fstree.KindSkipped:
		return nil
	}
	return w.nameEntry(i, unix.EINVAL) // Check accepts no other kind
}

// makeFile makes a file, or one more name for it. The name made first gets the content.
func (w *writer) makeFile(ctx context.Context, d *directory, i fstree.ID) error {
	n, inode := w.tree.At(i), w.tree.Inode(i)
	if first, ok := w.made[inode]; ok {
		return w.nameEntry(i, w.makeHardlink(first, d, n.Name))
	}
	fd, err := createFile(d.fd, n.Name)
	if err != nil {
		return w.nameEntry(i, err)
	}
	d.pending.Add(1)
	if w.tree.At(inode).Names > 1 {
		w.made[inode] = i
	}
	err = w.workers.submit(ctx, func(ctx context.Context, b *bufferPair) (err error) {
		defer func() { err = errors.Join(err, unix.Close(fd), w.release(d)) }()
		return w.nameEntry(i, w.writeFile(ctx, b, fd, d.fd, n.Name, inode))
	})
	if err != nil {
		return errors.Join(err, unix.Close(fd), w.release(d))
	}
	return nil
}

// makeHardlink gives a file one more name. The directory of its first name may be closed
// already.
func (w *writer) makeHardlink(first fstree.ID, d *directory, name string) error {
	n := w.tree.At(first)
	if n.Parent == d.node {
		return linkAt(d.fd, n.Name, d.fd, name)
	}
	fd, err := openDir(w.topDir, w.tree.Path(w.root, n.Parent))
	if err != nil {
		return err
	}
	return errors.Join(linkAt(fd, n.Name, d.fd, name), unix.Close(fd))
}

// writeFile writes a file's data and attributes. The order matters: a change of owner
// clears special bits and file capabilities, so the owner comes before the mode, and both
// come before the extended attributes. The times come last.
func (w *writer) writeFile(ctx context.Context, b *bufferPair, fd, dir int, name string, inode fstree.ID) error {
	n := w.tree.At(inode)
	sum, err := copyFile(ctx, b, w.src, n, fd, w.advance)
	if err != nil {
		return err
	}
	w.sums[inode] = &sum
	w.early.add(n.Size)
	if err := setAttributes(fd, n, w.tree.Xattrs(inode)); err != nil {
		return err
	}
	return setTimes(dir, name, n)
}

// advance reports progress.
func (w *writer) advance(n int) {
	if w.progress == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.written += int64(n)
	w.progress(w.written)
}

// release counts one entry of a directory as done. After the last one it finishes the
// directory, which is an entry of the directory above.
func (w *writer) release(d *directory) error {
	var errs []error
	for ; d != nil && d.pending.Add(-1) == 0; d = d.parent {
		// A panic is caught here, so that the directories above are closed too.
		errs = append(errs, archive.CatchPanic(func() error { return w.finishDir(d) }), unix.Close(d.fd))
	}
	return errors.Join(errs...)
}

// finishDir sets a directory's attributes.
func (w *writer) finishDir(d *directory) error {
	n := w.tree.At(d.node)
	err := setAttributes(d.fd, n, w.tree.Xattrs(d.node))
	if err == nil {
		err = setTimes(d.above, d.name, n)
	}
	return w.nameEntry(d.node, err)
}

// nameEntry adds the entry's name to an error.
func (w *writer) nameEntry(i fstree.ID, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("write %q: %w", fstree.TruncateName(w.tree.Path(fstree.Root, i)), err)
}

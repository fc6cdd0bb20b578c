package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/failpoint"
)

const (
	rootfsName = "rootfs"     // where the tree goes, below the file system's root
	configName = "image.json" // the image's configuration, beside it
)

// Extract writes the plan's tree to rootfs/ below root, an open directory of an empty
// file system that nobody else sees, best a detached mount with nosymfollow, nodev,
// nosuid and noexec. It decides nothing: it writes what Check has judged. It returns the
// manifest of what it wrote, which is for the caller to synchronise.
//
// No symbolic link is ever followed: the kernel sees single names only, relative to the
// descriptor of a directory that was made here. progress may be nil; it is called with
// the bytes written so far, by several goroutines, one at a time. They, and those that
// read src, run on threads that keep only the capabilities that writing a tree takes.
//
// It needs root's rights. Errors are ErrChanged, the cause of ctx, and errno of the file
// system; whatever was written stays, for the caller to throw away.
func Extract(ctx context.Context, src io.ReaderAt, plan *Plan, root *os.File, progress func(done int64)) (*Manifest,
	error,
) {
	return extract(ctx, only(toWrite(plan.Policy), 0), src, plan, root, progress)
}

func extract(ctx context.Context, in confinement, src io.ReaderAt, plan *Plan, root *os.File,
	progress func(int64),
) (m *Manifest, err error) {
	w := &writer{
		src: src, tree: plan.tree, root: plan.root, sums: make([]*[32]byte, plan.tree.count),
		progress: progress, made: map[id]id{},
	}
	err = in(func() error { m, err = w.write(ctx, in, plan, root); return err })
	return m, err
}

// write is called where it is confined, and confines its crew.
func (w *writer) write(ctx context.Context, in confinement, plan *Plan, root *os.File) (*Manifest, error) {
	if !plan.stamp.same(w.src) {
		return nil, ErrChanged
	}
	config, err := w.config(ctx, plan, root)
	if err != nil {
		return nil, err
	}
	inner, crew := startCrew(ctx, in)
	w.crew = crew
	w.early.fd = int(root.Fd())
	err = crew.finish(inner, guarded(func() error { return w.all(inner, plan.root, int(root.Fd())) }))
	err = errors.Join(err, w.early.wait())
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("%w: %w", ErrChanged, err)
	case err != nil:
		return nil, err
	case !plan.stamp.same(w.src):
		return nil, ErrChanged
	}
	return manifestOf(ctx, plan, w.sums, config)
}

// writer writes one tree.
type writer struct {
	src  io.ReaderAt
	tree *tree
	root id
	sums []*[32]byte // by node, of files
	crew *crew

	early writeBack
	made  map[id]id // the name under which a file with several names was made
	top   int       // descriptor of rootfs/

	mu       sync.Mutex
	written  int64
	progress func(int64)
}

// directory is one that is being filled. It is finished (owner, mode, times: last, or
// filling it would change them) by whoever finishes the last thing in it.
type directory struct {
	fd      int
	node    id
	name    string
	parent  *directory // nil for the top
	above   int        // descriptor of the directory it is in
	pending atomic.Int32
}

func (w *writer) all(ctx context.Context, root id, above int) error {
	d, err := w.mkdir(root, rootfsName, nil, above)
	if err != nil {
		return err
	}
	w.top = d.fd
	failpoint.Here("amid", "extract")
	return w.fill(ctx, d)
}

// mkdir makes a directory and opens it. It counts as pending in itself until fill is
// through.
func (w *writer) mkdir(node id, name string, parent *directory, above int) (*directory, error) {
	if err := mkdirAt(above, name); err != nil {
		return nil, w.explain(node, err)
	}
	fd, err := openDir(above, name)
	if err != nil {
		return nil, w.explain(node, err)
	}
	d := &directory{fd: fd, node: node, name: name, parent: parent, above: above}
	d.pending.Store(1)
	if parent != nil {
		parent.pending.Add(1)
	}
	return d, nil
}

// fill makes all names in a directory, in the archive's order, which is also that of the
// data to be read.
func (w *writer) fill(ctx context.Context, d *directory) (err error) {
	defer func() { err = errors.Join(err, w.release(d)) }()
	for i := range w.tree.children(d.node) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := w.entry(ctx, d, i); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) entry(ctx context.Context, d *directory, i id) error {
	n := w.tree.at(i)
	switch n.kind {
	case kindDir:
		sub, err := w.mkdir(i, n.name, d, d.fd)
		if err != nil {
			return err
		}
		return w.fill(ctx, sub)
	case kindSymlink:
		return w.explain(i, makeSymlink(d.fd, n))
	case kindFile, kindHardlink:
		return w.file(ctx, d, i)
	case kindSkipped:
		return nil
	}
	return w.explain(i, unix.EINVAL) // Check lets no other kind through
}

// file makes a file, or one more name for it: whichever name comes first gets the
// content.
func (w *writer) file(ctx context.Context, d *directory, i id) error {
	n, inode := w.tree.at(i), w.tree.inode(i)
	if first, ok := w.made[inode]; ok {
		return w.explain(i, w.hardlink(first, d, n.name))
	}
	fd, err := createFile(d.fd, n.name)
	if err != nil {
		return w.explain(i, err)
	}
	d.pending.Add(1)
	if w.tree.at(inode).names > 1 {
		w.made[inode] = i
	}
	err = w.crew.do(ctx, func(ctx context.Context, b *buffers) (err error) {
		defer func() { err = errors.Join(err, unix.Close(fd), w.release(d)) }()
		return w.explain(i, w.content(ctx, b, fd, d.fd, n.name, inode))
	})
	if err != nil {
		return errors.Join(err, unix.Close(fd), w.release(d))
	}
	return nil
}

// hardlink gives a file one more name. The directory of its first name may be closed by
// now.
func (w *writer) hardlink(first id, d *directory, name string) error {
	n := w.tree.at(first)
	if n.parent == d.node {
		return linkAt(d.fd, n.name, d.fd, name)
	}
	fd, err := openDir(w.top, w.tree.path(w.root, n.parent))
	if err != nil {
		return err
	}
	return errors.Join(linkAt(fd, n.name, d.fd, name), unix.Close(fd))
}

// content writes a file's data and attributes. The owner comes before the mode, as a
// change of owner takes special bits away, and both before the attributes, of which it
// takes capabilities; the times come last.
func (w *writer) content(ctx context.Context, b *buffers, fd, dir int, name string, inode id) error {
	n := w.tree.at(inode)
	sum, err := copyFile(ctx, b, w.src, n, fd, w.advance)
	if err != nil {
		return err
	}
	w.sums[inode] = &sum
	w.early.add(n.size)
	if err := setAttributes(fd, n, w.tree.xattrs[inode]); err != nil {
		return err
	}
	return setTimes(dir, name, n)
}

func (w *writer) advance(n int) {
	if w.progress == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.written += int64(n)
	w.progress(w.written)
}

// release says that one thing in the directory is done.
func (w *writer) release(d *directory) error {
	var errs []error
	for ; d != nil && d.pending.Add(-1) == 0; d = d.parent {
		// Guarded, so that the directories above are closed whatever happens in this one.
		errs = append(errs, guarded(func() error { return w.finish(d) }), unix.Close(d.fd))
	}
	return errors.Join(errs...)
}

// finish gives a directory its attributes, when all in it is done.
func (w *writer) finish(d *directory) error {
	n := w.tree.at(d.node)
	err := setAttributes(d.fd, n, w.tree.xattrs[d.node])
	if err == nil {
		err = setTimes(d.above, d.name, n)
	}
	return w.explain(d.node, err)
}

// explain names the entry of an error.
func (w *writer) explain(i id, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("write %q: %w", shorten(w.tree.path(rootID, i)), err)
}

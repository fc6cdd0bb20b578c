// Package extract writes the tree of a judged archive to an empty file system, and reads
// trees back.
//
// [Write] takes the plan of archive.Check. It decides nothing and follows no symbolic
// link: the kernel sees single names only, relative to the descriptor of a directory made
// here. [ReadBack] makes the inventory of a mounted tree, to compare it with that of what
// was written. [WriteSealRecord] and [ReadSealRecord] keep a record beside the tree.
//
// Below the root of the file system lie rootfs/, the tree; image.json, the configuration
// of an image in layers; and seal.json, the seal record.
//
// All work is done by threads that keep only the capabilities for it and end afterwards.
// A panic of one of them is an error, a [*archive.Panic]. The package neither logs nor
// retries nor counts.
package extract

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/archive/fstree"
)

// Write writes the plan's tree to rootfs/ below root. root is an open directory of an
// empty file system that nobody else uses, ideally a detached mount with nosymfollow,
// nodev, nosuid and noexec. Write returns the inventory of what it wrote; the caller
// synchronises the file system.
//
// progress may be nil. It is called with the bytes written so far, by several goroutines,
// one at a time. They read src too, and keep only the capabilities for writing a tree.
//
// Write needs the rights of root. Errors are archive.ErrChanged, the cause of ctx, a
// *archive.Panic, and errno of the file system. After an error the caller discards what
// was written.
func Write(ctx context.Context, src io.ReaderAt, plan *archive.Plan, root *os.File,
	progress func(done int64),
) (*fstree.Inventory, error) {
	return writeTree(ctx, withOnlyCapabilities(extractCaps(plan.Policy), 0), src, plan, root, progress)
}

func writeTree(ctx context.Context, in confine, src io.ReaderAt, plan *archive.Plan, root *os.File,
	progress func(int64),
) (*fstree.Inventory, error) {
	w := &writer{
		src: src, tree: plan.Tree, root: plan.Root, sums: make([]*[32]byte, plan.Tree.Len()),
		progress: progress, made: map[fstree.ID]fstree.ID{},
	}
	return confined(in, func() (*fstree.Inventory, error) { return w.write(ctx, in, plan, root) })
}

// write is called confined, and confines its workers.
func (w *writer) write(ctx context.Context, in confine, plan *archive.Plan, root *os.File) (*fstree.Inventory,
	error,
) {
	if !plan.Unchanged(w.src) {
		return nil, archive.ErrChanged
	}
	if err := writeConfig(ctx, plan.Config, int(root.Fd())); err != nil {
		return nil, err
	}
	inner, workers := startWorkers(ctx, in)
	w.workers = workers
	w.early.fd = int(root.Fd())
	err := workers.finish(inner, archive.CatchPanic(func() error { return w.writeRoot(inner, int(root.Fd())) }))
	err = errors.Join(err, w.early.wait())
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("%w: %w", archive.ErrChanged, err)
	case err != nil:
		return nil, err
	case !plan.Unchanged(w.src):
		return nil, archive.ErrChanged
	}
	return plan.Inventory(ctx, w.sums)
}

// writeConfig writes the configuration of an image beside the tree. It does nothing if
// there is none.
func writeConfig(ctx context.Context, config []byte, root int) error {
	if config == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	n := fstree.Node{Name: archive.ConfigName, Mode: archive.ConfigMode}
	fd, err := createFile(root, n.Name)
	if err != nil {
		return fmt.Errorf("write %s: %w", n.Name, err)
	}
	err = writeAll(fd, config)
	return errors.Join(err, setAttributes(fd, &n, nil), setTimes(root, n.Name, &n), unix.Close(fd))
}

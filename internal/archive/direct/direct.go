// Package direct writes the tree of a judged archive into an empty ext4 file system that
// is not mounted.
//
// mke2fs has made the file system, with the features of the product's devices. Every size
// is known before anything is written. So [LayOut] gives everything its place, and
// [Writer.Write] writes it to the device in large direct writes, in the order of the
// archive. The kernel sees blocks and no names: an archive does not reach its file system
// code here. What the kernel reads later is the same tree that package extract writes.
//
// The format on the device is that of Documentation/filesystems/ext4 in the kernel's
// source, and of fs/ext4 where that is silent. The package neither logs nor retries nor
// counts.
package direct

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/archive/fstree"
	"imagemanager.internal/internal/failpoint"
)

var (
	// ErrUnsupported is returned when this package cannot write such a tree, or not to
	// such a file system. Nothing has been written then. Package extract may be able to.
	ErrUnsupported = errors.New("not for the direct engine")
	// ErrNoRoom is returned when the tree does not fit the file system. Nothing has been
	// written then.
	ErrNoRoom = errors.New("the tree does not fit the file system")
	// ErrNotNew is returned when the file system is damaged, or not as mke2fs made it.
	ErrNotNew = errors.New("the file system is not as mke2fs made it")
	// ErrVerify is returned when the device gives back other bytes than were written.
	ErrVerify = errors.New("the device does not hold what was written")
)

// Options are what a caller may choose.
type Options struct {
	// Seal returns the seal record for the inventory of what was written, of at most
	// archive.MaxSealRecord bytes.
	Seal func(*fstree.Inventory) ([]byte, error)
	// Verify has every block that was written read back from the device and compared.
	Verify bool
	// Progress may be nil. It is called with the bytes of files written so far.
	Progress func(done int64)
}

// blockDevice is what a device is asked for.
type blockDevice interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// Writer writes one tree to one device: with Write, then Sync, then Verify. After an
// error the caller discards the file system. Close ends it at any time. It has only a few
// buffers for the device: as the place of everything is known, each block is made when
// its turn comes.
type Writer struct {
	*layout
	device  blockDevice
	src     io.ReaderAt
	ahead   *window // of src
	options Options
	out     *stream
	now     time.Time // of the change of every inode
	sums    []*[sha256.Size]byte
	copied  int64 // bytes of files
}

// LayOut prepares the writing of a plan's tree to a device with a new file system. It
// writes nothing. device is open for reading and writing with O_DIRECT, and nobody else
// uses it.
//
// Errors are ErrUnsupported, ErrNoRoom, ErrNotNew, the cause of ctx, and errno.
func LayOut(ctx context.Context, src io.ReaderAt, plan *archive.Plan, device *os.File) (*Writer, error) {
	fs, err := readFilesystem(device)
	if err != nil {
		return nil, fmt.Errorf("read the new file system: %w", err)
	}
	w := &Writer{
		layout: newLayout(fs, plan), device: device, src: src, ahead: newWindow(src), now: time.Now(),
		sums: make([]*[sha256.Size]byte, plan.Tree.Len()),
	}
	return w, w.layOut(ctx)
}

// Write writes the tree to rootfs/, the image's configuration, and the seal record. It
// returns the inventory of what it wrote, without the seal record. Verification goes on
// beside it, and until Verify returns. It ends with ctx.
//
// Errors are archive.ErrChanged, ErrVerify, archive.ErrSealRecord, those of Seal, the
// cause of ctx, an *archive.Panic, and errno of the device.
func (w *Writer) Write(ctx context.Context, o Options) (written *fstree.Inventory, err error) {
	if !w.plan.Unchanged(w.src) {
		return nil, archive.ErrChanged
	}
	w.options = o
	inner, out, err := startStream(ctx, w.device, o.Verify)
	if err != nil {
		return nil, err
	}
	w.out = out
	err = archive.CatchPanic(func() (err error) { written, err = w.write(inner); return err })
	err = out.drain(err)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("%w: %w", archive.ErrChanged, err)
	case err != nil:
		return nil, err
	case !w.plan.Unchanged(w.src):
		return nil, archive.ErrChanged
	}
	return written, nil
}

// Sync makes what was written durable: afterwards it survives a power cut.
func (w *Writer) Sync() error {
	failpoint.Here("before", "sync")
	defer failpoint.Here("after", "sync")
	return w.device.Sync()
}

// Verify returns when all that was written has been read back and compared, if the
// options say so. Errors are ErrVerify, the cause of the context of Write, and errno.
func (w *Writer) Verify() error { return w.out.verified() }

// Close frees what the Writer holds; the device stays open. It may be called twice.
func (w *Writer) Close() {
	if w.out != nil {
		w.out.close()
	}
}

// write writes the directories, then the data of files in the order of the archive, and
// then what refers to them.
func (w *Writer) write(ctx context.Context) (*fstree.Inventory, error) {
	if err := w.writeDirs(ctx); err != nil {
		return nil, err
	}
	failpoint.Here("amid", "extract")
	if err := w.writeFiles(ctx); err != nil {
		return nil, err
	}
	if err := w.out.waitForHashes(ctx); err != nil {
		return nil, err
	}
	written, err := w.plan.Inventory(ctx, w.sums)
	if err != nil {
		return nil, err
	}
	record, err := w.options.Seal(written)
	if err != nil {
		return nil, err
	}
	if err := archive.CheckSealRecord(record); err != nil {
		return nil, err
	}
	if err := w.addTopFile(archive.SealRecordName, archive.SealRecordMode, record); err != nil {
		return nil, err
	}
	for _, step := range []func(context.Context) error{w.writeTopFiles, w.writeRoot, w.writeInodes, w.writeGroups} {
		failpoint.Here("amid", "extract")
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return written, nil
}

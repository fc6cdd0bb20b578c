package extract

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/archive/fstree"
)

const (
	// lostFound is made by mkfs. It is empty unless a file system check put files into
	// it.
	lostFound = "lost+found"
	// readBatch is how many names a thread takes at once.
	readBatch = 32
)

// ReadBack makes the inventory of a mounted file system: everything below root, an open
// directory, except an empty lost+found and the seal record.
//
// It follows no symbolic link and opens directories and regular files only. Its threads
// keep only the capabilities for reading all files and seeing all attributes. Errors are
// the cause of ctx, a *archive.Panic, and errno.
func ReadBack(ctx context.Context, root *os.File) (*fstree.Inventory, error) {
	return readBack(ctx, withOnlyCapabilities(readCaps, trustedXattrCaps), root)
}

func readBack(ctx context.Context, in confine, root *os.File) (*fstree.Inventory, error) {
	r := &reader{contents: map[uint64]*fstree.Record{}}
	var top directoryRead
	err := runTasks(ctx, in, &r.tasks, func(ctx context.Context, b *bufferPair) error {
		fd, err := openDir(int(root.Fd()), "") // with an offset of its own
		if err != nil {
			return err
		}
		return r.readDir(ctx, b, fd, &top)
	})
	if err != nil {
		return nil, fmt.Errorf("read back: %w", err)
	}
	return r.inventory(&top), nil
}

// reader reads one tree. Its threads share the tasks: each is a part of a directory, or
// one large file.
type reader struct {
	tasks taskStack

	mu       sync.Mutex
	contents map[uint64]*fstree.Record // by inode number of a file with several names: the one that is read
}

// directoryRead is a directory that is being read.
type directoryRead struct {
	record  *fstree.Record // nil for the root of the file system
	entries []entryRead    // in the order of their names

	fd    int
	users atomic.Int32 // tasks that need the descriptor
}

// entryRead is a name in a directory.
type entryRead struct {
	record *fstree.Record // nil for a name that does not count
	dir    *directoryRead // of a directory
	inode  uint64         // of a file with several names; otherwise 0
}

// readDir reads a directory and takes over its descriptor. The task goes on with the
// first names; further ones are tasks of their own.
func (r *reader) readDir(ctx context.Context, b *bufferPair, fd int, d *directoryRead) (err error) {
	d.fd = fd
	d.users.Store(1)
	defer func() { err = errors.Join(err, d.release()) }()
	names, err := readNames(ctx, fd)
	if err != nil {
		return err
	}
	records := make([]fstree.Record, len(names))
	d.entries = make([]entryRead, len(names))
	for i, name := range names {
		records[i] = fstree.Record{Parent: d.record, Name: name}
		d.entries[i].record = &records[i]
	}
	for end := len(names); end > readBatch; { // the first names come to lie on top
		part := d.entries[(end-1)/readBatch*readBatch : end]
		end -= len(part)
		r.push(d, func(ctx context.Context, b *bufferPair) error { return r.readEntries(ctx, b, d, part, nil) })
	}
	return r.readEntries(ctx, b, d, d.entries[:min(len(names), readBatch)], d.record)
}

// push adds a task that needs the descriptor of a directory. Tasks that wait hold no
// other: so their number does not depend on the tree's, but for its depth.
func (r *reader) push(d *directoryRead, t task) {
	d.users.Add(1)
	r.tasks.push(func(ctx context.Context, b *bufferPair) (err error) {
		defer func() { err = errors.Join(err, d.release()) }()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return t(ctx, b)
	})
}

// release gives back the descriptor of a directory. The last user closes it.
func (d *directoryRead) release() error {
	if d.users.Add(-1) > 0 {
		return nil
	}
	return unix.Close(d.fd)
}

// readEntries reads some names of a directory, and with them the directory's own
// attributes if own is not nil. What it opens it opens by their names first; then it
// reads from the descriptors.
func (r *reader) readEntries(ctx context.Context, b *bufferPair, d *directoryRead, part []entryRead,
	own *fstree.Record,
) (err error) {
	var batch fileBatch
	defer func() { err = errors.Join(err, batch.close()) }()
	for i := range part {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		rec := part[i].record
		if err := r.readEntry(ctx, &batch, d, &part[i]); err != nil {
			return nameRecord(rec, err)
		}
	}
	return batch.read(ctx, b, d.fd, own)
}

// readEntry takes the attributes of a name. A small file comes into the batch; what takes
// longer is a task of its own.
func (r *reader) readEntry(ctx context.Context, batch *fileBatch, d *directoryRead, e *entryRead) error {
	var st unix.Stat_t
	rec := e.record
	if err := retry(func() error { return unix.Fstatat(d.fd, rec.Name, &st, unix.AT_SYMLINK_NOFOLLOW) }); err != nil {
		return err
	}
	if d.record == nil && rec.Name == archive.SealRecordName && isSealRecord(&st) {
		e.record = nil
		return nil
	}
	rec.Type, rec.Mode = recordType(st.Mode), uint16(st.Mode&0o7777)
	rec.UID, rec.GID, rec.Sec, rec.Nsec = st.Uid, st.Gid, st.Mtim.Sec, int32(st.Mtim.Nsec)
	switch rec.Type {
	case fstree.TypeDir:
		return r.readSubdir(ctx, d, e)
	case fstree.TypeFile:
		rec.Size = st.Size
		if st.Nlink > 1 {
			e.inode = st.Ino
		}
		return r.readFile(batch, d, e)
	case fstree.TypeSymlink:
		target, err := readLink(d.fd, rec.Name)
		rec.Target = target
		return err
	}
	return nil
}

// readSubdir reads a directory, but not an empty lost+found at the top.
func (r *reader) readSubdir(ctx context.Context, d *directoryRead, e *entryRead) error {
	if d.record == nil && e.record.Name == lostFound {
		empty, err := isEmptyDir(ctx, d.fd, lostFound)
		if err != nil {
			return err
		}
		if empty {
			e.record = nil
			return nil
		}
	}
	e.dir = &directoryRead{record: e.record}
	r.push(d, func(ctx context.Context, b *bufferPair) error {
		fd, err := openDir(d.fd, e.record.Name)
		if err != nil {
			return nameRecord(e.record, err)
		}
		return r.readDir(ctx, b, fd, e.dir)
	})
	return nil
}

// readFile reads a file, once for all its names.
func (r *reader) readFile(batch *fileBatch, d *directoryRead, e *entryRead) error {
	if e.inode != 0 && !r.claim(e) {
		return nil
	}
	if e.record.Size < bufferSize {
		return batch.open(d.fd, e.record)
	}
	r.push(d, func(ctx context.Context, b *bufferPair) (err error) {
		var large fileBatch
		defer func() { err = errors.Join(err, large.close()) }()
		if err := large.open(d.fd, e.record); err != nil {
			return nameRecord(e.record, err)
		}
		return large.read(ctx, b, -1, nil)
	})
	return nil
}

// claim reports whether nobody has claimed the content of this file by another name.
func (r *reader) claim(e *entryRead) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.contents[e.inode] != nil {
		return false
	}
	r.contents[e.inode] = e.record
	return true
}

// inventory puts the records in order, when all tasks are done.
func (r *reader) inventory(top *directoryRead) *fstree.Inventory {
	var list []*fstree.Record
	first := map[uint64]*fstree.Record{}
	var appendDir func(d *directoryRead)
	appendDir = func(d *directoryRead) {
		for _, e := range d.entries {
			if e.record == nil {
				continue
			}
			list = append(list, e.record)
			if e.inode != 0 {
				content := r.contents[e.inode]
				e.record.SHA256, e.record.Xattrs = content.SHA256, content.Xattrs
				if e.record.First = first[e.inode]; e.record.First == nil {
					first[e.inode] = e.record
				}
			}
			if e.dir != nil {
				appendDir(e.dir)
			}
		}
	}
	appendDir(top)
	return &fstree.Inventory{Records: list}
}

// nameRecord adds the name to an error.
func nameRecord(rec *fstree.Record, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%q: %w", fstree.TruncateName(rec.Path()), err)
}

package extract

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/archive/fstree"
	"imagemanager.internal/test/images"
)

// Every task is run, those that tasks push too, also after one of them failed or
// panicked; then the context has ended.
func TestEveryTaskIsRun(t *testing.T) {
	free := func(work func() error) error { return work() }
	for name, c := range map[string]struct {
		fail func() error
		says func(error) bool
	}{
		"all succeed": {func() error { return nil }, func(err error) bool { return err == nil }},
		"one fails":   {func() error { return errStop }, func(err error) bool { return errors.Is(err, errStop) }},
		"one panics": {func() error { defective(); return nil }, func(err error) bool {
			var p *archive.Panic
			return errors.As(err, &p) && strings.Contains(string(p.Stack), "defective")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			const depth = 9
			var s taskStack
			var run, late atomic.Int64
			var tree func(left int) task
			tree = func(left int) task {
				return func(ctx context.Context, _ *bufferPair) error {
					run.Add(1)
					if left > 0 {
						s.push(tree(left - 1))
						s.push(tree(left - 1))
					}
					if left == depth {
						return c.fail()
					}
					if name != "all succeed" {
						<-ctx.Done()
						late.Add(1)
						return context.Cause(ctx)
					}
					return nil
				}
			}
			err := runTasks(t.Context(), free, &s, tree(depth))
			if !c.says(err) || run.Load() != 2<<depth-1 || err != nil && late.Load() != run.Load()-1 {
				t.Errorf("%d tasks run, %d of them late, %v", run.Load(), late.Load(), err)
			}
		})
	}
}

// A panic in the middle of a batch is an error, and leaves nothing open: neither the
// files of the batch nor the directory.
func TestPanicInABatch(t *testing.T) {
	root := openTemp(t)
	for _, name := range []string{"a", "b", "c"} {
		check(t, os.WriteFile(root.Name()+"/"+name, []byte(name), 0o600))
	}
	open := entries(t, "/proc/self/fd")
	r := &reader{contents: map[uint64]*fstree.Record{}}
	err := runTasks(t.Context(), withOnlyCapabilities(readCaps, trustedXattrCaps), &r.tasks,
		func(ctx context.Context, b *bufferPair) error {
			fd, err := openDir(int(root.Fd()), "")
			check(t, err)
			d := &directoryRead{fd: fd}
			d.users.Store(1)
			defer func() { check(t, d.release()) }()
			return r.readEntries(ctx, b, d, []entryRead{{record: &fstree.Record{Name: "a"}}, {}}, nil)
		})
	isPanic(t, err, "readEntry")
	if now := entries(t, "/proc/self/fd"); now != open {
		t.Errorf("%d descriptors, %d before", now, open)
	}
}

// However wide and deep a tree is, few descriptors are open while it is read.
func TestFewDescriptors(t *testing.T) {
	needRoot(t)
	root := newDisk(t, 256<<20).mount(t.TempDir())
	const depth, dirs, large = 40, 30, 10
	at := root.Name()
	for range depth {
		for i := range dirs { // the last one goes deeper
			check(t, os.Mkdir(fmt.Sprintf("%s/%d", at, i), 0o700))
		}
		for i := range large { // holes
			path := fmt.Sprintf("%s/large%d", at, i)
			check(t, errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, bufferSize)))
		}
		at = fmt.Sprintf("%s/%d", at, dirs-1)
	}
	open, most := entries(t, "/proc/self/fd"), 0
	ctx, cancel := context.WithCancel(t.Context())
	var watch sync.WaitGroup
	watch.Go(func() {
		for ctx.Err() == nil {
			most = max(most, entries(t, "/proc/self/fd")-open)
		}
	})
	_, err := ReadBack(t.Context(), root)
	cancel()
	watch.Wait()
	if limit := depth + readerCount*(readBatch+2) + 10; err != nil || most > limit {
		t.Errorf("%d descriptors, at most %d expected; %v", most, limit, err)
	}
	t.Logf("%d descriptors", most)
}

// A disk that fails in the middle of a tree ends the reading with its error, and nothing
// is left open.
func TestReadBackOfAFailingDisk(t *testing.T) {
	d := newDisk(t, 64<<20)
	dir := t.TempDir()
	root := d.mount(dir)
	b := images.Tar(images.Root(withBodies(images.Numbered(3000, "usr/%05d"), 12<<10)...)...)
	extractBytes(t, b, archive.Strict, root)
	check(t, unix.Syncfs(int(root.Fd())))
	check(t, root.Close())
	check(t, unix.Unmount(dir, 0))
	root = d.detached(unix.MOUNT_ATTR_RDONLY)
	open := entries(t, "/proc/self/fd")
	check(t, os.Truncate(d.path, 40<<20)) // the loop device fails beyond
	if _, err := ReadBack(t.Context(), root); !errors.Is(err, unix.EIO) {
		t.Errorf("ended with %v", err)
	}
	check(t, os.Truncate(d.path, 64<<20))
	if now := entries(t, "/proc/self/fd"); now != open {
		t.Errorf("%d descriptors, %d before", now, open)
	}
}

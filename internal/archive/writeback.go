package archive

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// writeBackEvery is how many bytes of small files are written before the kernel is asked
// to bring them to the disk.
const writeBackEvery = 32 << 20

// writeBack has the kernel write small files back while more are being made; else it
// begins only when all are there, and the disk idles meanwhile. Its errors count: the
// kernel reports a failed write once for an open file, so that the caller's own sync on
// the same descriptor would not see it again. Source: Documentation/filesystems/vfs.rst,
// "Handling errors during writeback".
type writeBack struct {
	fd int // of the file system

	mu      sync.Mutex
	running sync.WaitGroup
	busy    bool
	pending int64
	err     error
}

// add counts a file. Large ones do not count: the kernel is quick to write those back by
// itself, and waiting for it slows them down.
func (b *writeBack) add(size int64) {
	if size > bufferSize {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pending += size; b.pending < writeBackEvery || b.busy {
		return
	}
	b.pending, b.busy = 0, true
	b.running.Go(func() {
		err := guarded(func() error { return unix.Syncfs(b.fd) })
		b.mu.Lock()
		defer b.mu.Unlock()
		b.busy, b.err = false, errors.Join(b.err, err)
	})
}

// wait returns when nothing is under way, with what went wrong.
func (b *writeBack) wait() error {
	b.running.Wait()
	if b.err != nil {
		return fmt.Errorf("early write-back: %w", b.err)
	}
	return nil
}

package extract

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/archive"
)

// writeBackEvery is how many bytes of small files are written before the kernel is asked
// to write them back.
const writeBackEvery = 32 << 20

// writeBack has the kernel write small files back while more are being made. Otherwise it
// would begin when all are made, and the disk would idle until then. Errors are kept: the
// kernel reports a failed write once for each open file, so the caller's own sync on the
// same descriptor would not see it. Source: Documentation/filesystems/vfs.rst, "Handling
// errors during writeback".
type writeBack struct {
	fd int // any descriptor of the file system

	mu      sync.Mutex
	running sync.WaitGroup
	busy    bool
	pending int64 // bytes
	err     error
}

// add counts a file. Large files do not count: the kernel soon writes those back by
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
		err := archive.CatchPanic(func() error { return unix.Syncfs(b.fd) })
		b.mu.Lock()
		defer b.mu.Unlock()
		b.busy, b.err = false, errors.Join(b.err, err)
	})
}

// wait returns when the kernel is done, with the errors.
func (b *writeBack) wait() error {
	b.running.Wait()
	if b.err != nil {
		return fmt.Errorf("early write-back: %w", b.err)
	}
	return nil
}

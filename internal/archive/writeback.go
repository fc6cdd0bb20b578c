package archive

import (
	"sync"

	"golang.org/x/sys/unix"
)

// writeBackEvery is how many bytes of small files are written before the kernel is asked to bring them to the disk.
const writeBackEvery = 32 << 20

// writeBack has the kernel write small files back while more are being made; else it begins only when all are there, and the disk
// idles meanwhile. It promises nothing: an error comes back from the caller's own sync.
type writeBack struct {
	fd int // of the file system

	mu      sync.Mutex
	running sync.WaitGroup
	busy    bool
	pending int64
}

// add counts a file. Large ones do not count: the kernel is quick to write those back by itself, and waiting for it slows them down.
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
		_ = unix.Syncfs(b.fd) // see above
		b.mu.Lock()
		defer b.mu.Unlock()
		b.busy = false
	})
}

// wait returns when nothing is under way.
func (b *writeBack) wait() { b.running.Wait() }

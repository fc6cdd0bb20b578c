package extract

import (
	"context"
	"sync"

	"imagemanager.internal/internal/archive"
)

const (
	// workerCount is how many files are written at once: enough to overlap hashing with
	// the kernel's work. More do not help, as ext4 does not scale with the creation of
	// inodes.
	workerCount = 2
	// bufferSize is how many bytes are read and written at once. It also bounds how long
	// a cancelled copy goes on.
	bufferSize = 1 << 20
	// queueDepth is how many jobs may wait. A goroutine bound to its thread is slow to
	// wake; with jobs in the queue it rarely sleeps. Each job holds a descriptor, so
	// there are few.
	queueDepth = 32
)

// bufferPair belongs to one thread: one buffer is hashed while the other is filled.
type bufferPair [2][]byte

// bufferPool keeps the buffers of threads that have ended. To allocate them each time
// would add a third to the reading of a small image.
var bufferPool = sync.Pool{
	New: func() any { return &bufferPair{alignedBuffer(bufferSize), alignedBuffer(bufferSize)} },
}

// workerPool runs jobs in a fixed number of goroutines, each confined.
type workerPool struct {
	jobs   chan func(context.Context, *bufferPair) error
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
}

// startWorkers returns a pool, and a context that ends with the first failure, which may
// be a *archive.Panic. Every accepted job is run, even after a failure, so that it can
// release what it holds. If a worker cannot be confined, the context has ended and no job
// is accepted.
func startWorkers(ctx context.Context, in confine) (context.Context, *workerPool) {
	ctx, cancel := context.WithCancelCause(ctx)
	p := &workerPool{jobs: make(chan func(context.Context, *bufferPair) error, queueDepth), cancel: cancel}
	var started sync.WaitGroup
	started.Add(workerCount)
	for range workerCount {
		p.wg.Go(func() {
			ready := sync.OnceFunc(started.Done)
			if err := in(func() error { ready(); p.work(ctx); return nil }); err != nil {
				cancel(err)
				ready()
			}
		})
	}
	started.Wait()
	return ctx, p
}

func (p *workerPool) work(ctx context.Context) {
	b := bufferPool.Get().(*bufferPair) //nolint:forcetypeassert // the pool has nothing else
	defer bufferPool.Put(b)
	for job := range p.jobs {
		if err := archive.CatchPanic(func() error { return job(ctx, b) }); err != nil {
			p.cancel(err)
		}
	}
}

// submit hands a job to the workers. If it returns an error, the job is not run.
func (p *workerPool) submit(ctx context.Context, job func(context.Context, *bufferPair) error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case p.jobs <- job:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// finish waits for all jobs and returns the first failure. err is the submitter's own; it
// ends the context if it is not nil.
func (p *workerPool) finish(ctx context.Context, err error) error {
	if err != nil {
		p.cancel(err)
	}
	close(p.jobs)
	p.wg.Wait()
	err = context.Cause(ctx)
	p.cancel(nil)
	return err
}

package archive

import (
	"context"
	"sync"
)

const (
	// crewSize is how many files are read or written at once: enough to keep hashing and
	// the kernel's work apart, and no more, as inode creation in ext4 does not scale.
	crewSize = 2
	// bufferSize is what is read and written at once. It also bounds how long a cancelled
	// copy goes on.
	bufferSize = 1 << 20
	// queued is how many jobs wait. A goroutine that is bound to its thread is slow to
	// wake, and this way seldom has to be; each job holds a descriptor, so they are few.
	queued = 32
)

// buffers are one worker's: one is hashed while the other is filled.
type buffers [2][]byte

// spare keeps the buffers of workers that have ended. Made anew, they would add a third
// to the reading of a small image.
var spare = sync.Pool{New: func() any { return &buffers{make([]byte, bufferSize), make([]byte, bufferSize)} }}

// crew runs jobs in a fixed number of goroutines, each confined.
type crew struct {
	jobs   chan func(context.Context, *buffers) error
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
}

// startCrew returns a crew and the context that ends with the first failure, which may be
// a *Panic. Every job that was accepted is run, also after that, so that it can give back
// what it holds. Where a worker cannot be confined, the context has ended by then and no
// job is accepted.
func startCrew(ctx context.Context, in confinement) (context.Context, *crew) {
	ctx, cancel := context.WithCancelCause(ctx)
	c := &crew{jobs: make(chan func(context.Context, *buffers) error, queued), cancel: cancel}
	var confined sync.WaitGroup
	confined.Add(crewSize)
	for range crewSize {
		c.wg.Go(func() {
			ready := sync.OnceFunc(confined.Done)
			if err := in(func() error { ready(); c.work(ctx); return nil }); err != nil {
				cancel(err)
				ready()
			}
		})
	}
	confined.Wait()
	return ctx, c
}

func (c *crew) work(ctx context.Context) {
	b := spare.Get().(*buffers) //nolint:forcetypeassert // nothing else is put there
	defer spare.Put(b)
	for job := range c.jobs {
		if err := guarded(func() error { return job(ctx, b) }); err != nil {
			c.cancel(err)
		}
	}
}

// do hands a job over. When it returns an error the job will not be run.
func (c *crew) do(ctx context.Context, job func(context.Context, *buffers) error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case c.jobs <- job:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// finish waits for all jobs and returns the first failure, err before others.
func (c *crew) finish(ctx context.Context, err error) error {
	if err != nil {
		c.cancel(err)
	}
	close(c.jobs)
	c.wg.Wait()
	err = context.Cause(ctx)
	c.cancel(nil)
	return err
}

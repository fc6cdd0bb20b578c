package archive

import (
	"context"
	"sync"
)

const (
	// crewSize is how many files are read or written at once: enough to keep hashing and the kernel's work apart, and no more, as
	// inode creation in ext4 does not scale.
	crewSize = 2
	// bufferSize is what is read and written at once. It also bounds how long a cancelled copy goes on.
	bufferSize = 1 << 20
)

// buffers are one worker's: one is hashed while the other is filled.
type buffers [2][]byte

// crew runs jobs in a fixed number of goroutines.
type crew struct {
	jobs   chan func(context.Context, *buffers) error
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
}

// startCrew returns a crew and the context that ends with the first failure. Every job that was accepted is run, also after that, so
// that it can give back what it holds.
func startCrew(ctx context.Context) (context.Context, *crew) {
	ctx, cancel := context.WithCancelCause(ctx)
	c := &crew{jobs: make(chan func(context.Context, *buffers) error), cancel: cancel}
	for range crewSize {
		c.wg.Go(func() {
			b := buffers{make([]byte, bufferSize), make([]byte, bufferSize)}
			for job := range c.jobs {
				if err := job(ctx, &b); err != nil {
					cancel(err)
				}
			}
		})
	}
	return ctx, c
}

// do hands a job over. When it returns an error the job will not be run.
func (c *crew) do(ctx context.Context, job func(context.Context, *buffers) error) error {
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

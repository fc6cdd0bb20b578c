package extract

import (
	"context"
	"sync"

	"imagemanager.internal/internal/archive"
)

// readerCount is how many threads read a tree: more than processors, as most of them wait
// for a directory or an inode that the kernel does not read ahead.
const readerCount = 6

// task is a part of the work that may push more tasks. It must release what it holds even
// if ctx has ended.
type task func(ctx context.Context, b *bufferPair) error

// taskStack has the tasks of readers, the newest on top: so few descriptors are open at
// once, and what was found together is read together.
type taskStack struct {
	mu   sync.Mutex
	wake *sync.Cond
	list []task
	open int // tasks that wait or run
}

// runTasks runs the first task and all that it leads to, on confined threads. It returns
// the first failure, which may be a *archive.Panic. Every task is run, even after a
// failure, with a context that has ended. If a thread cannot be confined, that is a
// failure.
func runTasks(ctx context.Context, in confine, s *taskStack, first task) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.wake = sync.NewCond(&s.mu)
	s.push(first)
	var threads sync.WaitGroup
	for range readerCount {
		threads.Go(func() {
			if err := in(func() error { s.work(ctx, cancel); return nil }); err != nil {
				cancel(err)
			}
		})
	}
	threads.Wait()
	return context.Cause(ctx)
}

func (s *taskStack) work(ctx context.Context, cancel context.CancelCauseFunc) {
	b := bufferPool.Get().(*bufferPair) //nolint:forcetypeassert // the pool has nothing else
	defer bufferPool.Put(b)
	for t := s.pop(); t != nil; t = s.pop() {
		if err := archive.CatchPanic(func() error { return t(ctx, b) }); err != nil {
			cancel(err)
		}
		s.done()
	}
}

// push adds a task. Only a task may do this, or whoever has not started the threads yet.
func (s *taskStack) push(t task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, t)
	s.open++
	s.wake.Signal()
}

// pop waits for a task. It returns nil when there will be none.
func (s *taskStack) pop() task {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.list) == 0 {
		if s.open == 0 {
			return nil
		}
		s.wake.Wait()
	}
	last := len(s.list) - 1
	t := s.list[last]
	s.list[last] = nil
	s.list = s.list[:last]
	return t
}

func (s *taskStack) done() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open--; s.open == 0 {
		s.wake.Broadcast()
	}
}

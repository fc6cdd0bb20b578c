package download

import (
	"context"
	"slices"
	"sync"
)

// budget shares a number of requests among downloads: a free one goes to the download
// that has the fewest, and among those to the one that has waited longest. So a lone
// download may have all it wants, and a further one gets as many as the others as soon as
// some of their requests have ended. None is taken away.
type budget struct {
	mu      sync.Mutex
	free    int
	waiting []*claim // in the order of their arrival
}

// share is one download's part of a budget.
type share struct {
	budget *budget
	limit  int // the most requests it may have
	held   int // guarded by budget.mu
}

// claim is one request: it waits, is under way, or has ended.
type claim struct {
	share   *share
	granted chan struct{} // closed when it may begin
	ended   bool          // guarded by budget.mu
}

// acquire waits until the download may make one more request. The error is that of ctx.
func (s *share) acquire(ctx context.Context) (*claim, error) {
	c := s.claim()
	select {
	case <-c.granted:
		return c, nil
	case <-ctx.Done():
		c.end()
		return nil, ctx.Err()
	}
}

// claim queues up for one more request.
func (s *share) claim() *claim {
	b, c := s.budget, &claim{share: s, granted: make(chan struct{})}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting = append(b.waiting, c)
	b.grant()
	return c
}

// end gives the request back, or no longer waits for it. It may be called at any time,
// any number of times.
func (c *claim) end() {
	b := c.share.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := slices.Index(b.waiting, c); i >= 0 {
		b.waiting = slices.Delete(b.waiting, i, i+1)
	} else if !c.ended {
		c.share.held, b.free = c.share.held-1, b.free+1
		b.grant()
	}
	c.ended = true
}

// grant hands out what is free. b.mu is held.
func (b *budget) grant() {
	for b.free > 0 {
		next := -1
		for i, c := range b.waiting {
			if c.share.held < c.share.limit && (next < 0 || c.share.held < b.waiting[next].share.held) {
				next = i
			}
		}
		if next < 0 {
			return
		}
		c := b.waiting[next]
		b.waiting = slices.Delete(b.waiting, next, next+1)
		c.share.held, b.free = c.share.held+1, b.free-1
		close(c.granted)
	}
}

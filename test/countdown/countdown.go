// Package countdown tests that long work looks at its context again and again, and ends
// with it.
package countdown

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
)

// ErrEnd is the error of a context that has ended.
var ErrEnd = errors.New("the count is down")

// counted is a context that ends after a number of looks at it.
type counted struct {
	context.Context //nolint:containedctx // it is one
	left            atomic.Int64
}

// Err counts a look.
func (c *counted) Err() error {
	if c.left.Add(-1) < 0 {
		return ErrEnd
	}
	return nil
}

func after(t *testing.T, looks int64) *counted {
	c := &counted{Context: t.Context()}
	c.left.Store(looks)
	return c
}

// Looks returns how many times do looks at its context. It runs do again for each of
// these looks, and checks that do ends there when the context does.
func Looks(t *testing.T, what string, do func(context.Context) error) int64 {
	t.Helper()
	const plenty = 1 << 40
	c := after(t, plenty)
	if err := do(c); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	total := plenty - c.left.Load()
	for n := range total {
		c := after(t, n)
		if err := do(c); !errors.Is(err, ErrEnd) {
			t.Errorf("%s: ended at look %d of %d, and returned %v", what, n+1, total, err)
		}
		if more := -c.left.Load() - 2; more > 0 { // context.Cause looks once more
			t.Errorf("%s: looked %d times more after the end", what, more)
		}
	}
	return total
}

package countdown

import (
	"context"
	"testing"
)

// Work is run to its end once, and ended at every look.
func TestLooks(t *testing.T) {
	ended := 0
	n := Looks(t, "work", func(ctx context.Context) error {
		for range 3 {
			if ctx.Err() != nil {
				ended++
				return context.Cause(ctx)
			}
		}
		return nil
	})
	if n != 3 || ended != 3 {
		t.Errorf("%d looks, ended %d times, want 3 of each", n, ended)
	}
}

package store

import (
	"errors"
	"testing"
)

// The generation only rises, and begins anew with another pool.
func TestPoolGeneration(t *testing.T) {
	s := newStore(t)
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(s.BeginPool(t.Context(), somePool()))
	for _, step := range []struct{ set, want uint64 }{{3, 3}, {2, 3}, {4, 4}} {
		check(s.SetPoolGeneration(t.Context(), step.set))
		if p, err := s.Pool(t.Context()); err != nil || p.Generation != step.want {
			t.Errorf("set to %d: %+v, %v", step.set, p, err)
		}
	}
	other := somePool()
	other.UUID = "1b7cf2ea-3d4b-4f0a-9f0e-7b7d1f4a2c11"
	if err := s.SetPoolPaths(t.Context(), other); !errors.Is(err, ErrNotFound) {
		t.Errorf("another pool located: %v", err)
	}
	there := somePool()
	there.Data, there.Metadata = "/there/d", "/there/m"
	check(s.SetPoolPaths(t.Context(), there))
	if p, err := s.Pool(t.Context()); err != nil || p.Data != "/there/d" || p.Metadata != "/there/m" ||
		p.Generation != 4 {
		t.Errorf("located: %+v, %v", p, err)
	}
	check(s.ReplacePool(t.Context(), there.UUID, other))
	if p, err := s.Pool(t.Context()); err != nil || p.Generation != 0 {
		t.Errorf("replaced: %+v, %v", p, err)
	}
}

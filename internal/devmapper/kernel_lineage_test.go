package devmapper

import (
	"testing"
)

// The pool's metadata know whose snapshot a device is, whatever its user wrote to it;
// only one who overwrote all of it is nobody's. None but origins were ever taken
// snapshots of.
func TestLineage(t *testing.T) {
	p, _ := newPool(t)
	path := newImage(t, p)
	fill(t, path, 3*mib)
	check(t, p.Deactivate(1))
	check(t, p.CreateSnapshot(2, 1))
	check(t, p.CreateThin(3)) // empty
	check(t, p.CreateThin(4))
	path, err := p.Activate(4, KindImage, deviceSize, false)
	check(t, err)
	fill(t, path, mib)
	check(t, p.Deactivate(4))
	check(t, p.CreateSnapshot(5, 4))
	check(t, p.CreateSnapshot(6, 1))
	for id, keep := range map[ID]int64{2: mib, 6: deviceSize} {
		path, err := p.Activate(id, KindSnapshot, deviceSize, false)
		check(t, err)
		fill(t, path, keep)
		check(t, p.Deactivate(id))
	}
	check(t, p.CreateSnapshot(7, 2)) // by hand: of a snapshot
	list, err := p.Lineage()
	check(t, err)
	want := []struct {
		origin ID
		was    bool
	}{{0, true}, {1, true}, {0, false}, {0, true}, {4, false}, {0, false}, {2, false}}
	if len(list) != len(want) {
		t.Fatalf("%+v", list)
	}
	for i, w := range want {
		a := list[i]
		origin := a.Origin
		if a.ID == 7 && origin == 1 { // it shares with both
			origin = 2
		}
		if a.ID != ID(i+1) || origin != w.origin || a.WasOrigin() != w.was {
			t.Errorf("device %d: origin %d, was an origin %t, want %d, %t: %+v",
				a.ID, a.Origin, a.WasOrigin(), w.origin, w.was, a.Thin)
		}
	}
}

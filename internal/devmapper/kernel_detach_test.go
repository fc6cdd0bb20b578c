package devmapper

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// activeThins makes n thin devices, active as snapshots, and returns their paths.
func activeThins(t *testing.T, p *Pool, n int) (paths []string) {
	t.Helper()
	for i := range n {
		id := ID(i + 1)
		check(t, p.CreateThin(id))
		path, err := p.Activate(id, KindSnapshot, 16*mib, false)
		check(t, err)
		paths = append(paths, path)
	}
	return paths
}

// devicesOf are the pool's devices with their numbers.
func devicesOf(t *testing.T, p *Pool) map[string]uint64 {
	t.Helper()
	list, err := p.ctl.List(p.cfg.uuidPrefix())
	check(t, err)
	all := map[string]uint64{}
	for _, d := range list {
		all[d.Name] = d.Number
	}
	return all
}

// While one device is held, by whatever is found last, none is taken away; the error
// names everyone who holds something.
func TestDetachHeld(t *testing.T) {
	p, cfg := newPool(t)
	paths := activeThins(t, p, 3)
	before := devicesOf(t, p)
	first, killFirst := other(t, "open", paths[0])
	third, killThird := other(t, "open", paths[2])
	err := Detach(cfg)
	for _, pid := range []int{first, third} {
		if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), fmt.Sprint(pid)) {
			t.Errorf("%v: want ErrBusy, and process %d", err, pid)
		}
	}
	if now := devicesOf(t, p); fmt.Sprint(now) != fmt.Sprint(before) {
		t.Errorf("there were %v, now %v", before, now)
	}
	killFirst()
	killThird()
	check(t, Detach(cfg))
	if left := devicesOf(t, p); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// A device of somebody else that lies on the pool holds it, although nothing of ours is
// open.
func TestDetachUnderAStranger(t *testing.T) {
	p, cfg := newPool(t)
	activeThins(t, p, 2)
	check(t, p.CreateThin(3))
	before := devicesOf(t, p)
	run(t, "dmsetup", "create", "stranger", "--table", fmt.Sprintf("0 32768 thin %s 3", p.dev))
	err := Detach(cfg)
	if now := devicesOf(t, p); fmt.Sprint(now) != fmt.Sprint(before) {
		t.Errorf("there were %v, now %v", before, now)
	}
	if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), "stranger") {
		t.Errorf("%v: want ErrBusy, and the stranger's name", err)
	}
	run(t, "dmsetup", "remove", "stranger")
	check(t, Detach(cfg))
}

// Opened after it was looked at, a device stays, and those that were removed before it
// are active again as they were.
func TestDetachRestores(t *testing.T) {
	p, cfg := newPool(t)
	paths := activeThins(t, p, 3)
	check(t, p.Deactivate(2))
	_, err := p.Activate(2, KindImage, 16*mib, true)
	check(t, err)
	fill(t, paths[0], 1<<20)
	want := digest(t, paths[0])
	list, err := p.ctl.List(cfg.uuidPrefix())
	check(t, err)
	_, kill := other(t, "open", paths[2])
	if err := removeOrRestore(p.ctl, cfg, list); !errors.Is(err, ErrBusy) {
		t.Errorf("%v: want ErrBusy", err)
	}
	kill()
	if now := devicesOf(t, p); len(now) != len(list) {
		t.Errorf("there were %v, now %v", list, now)
	}
	for _, d := range list {
		now, err := p.ctl.Find(d.UUID)
		if err != nil || !now.Live() || now.Suspended() || now.ReadOnly() != d.ReadOnly() || now.Name != d.Name {
			t.Errorf("%s: was %+v, is %+v, %v", d.Name, d, now, err)
		}
	}
	if got := digest(t, paths[0]); got != want {
		t.Error("it reads otherwise")
	}
	check(t, Detach(cfg))
}

package health

import (
	"errors"
	"slices"
	"testing"

	"imagemanager.internal/internal/devmapper"
)

// One trouble hides no other: each is found, and the gauges of pool and disks are of now.
func TestAllIsLookedAt(t *testing.T) {
	m := newMonitor(t)
	m.Capacity = m.checkCapacity
	m.cfg.Disks, m.cfg.MinFreeDisk, m.cfg.MinFreeData = []string{t.TempDir(), t.TempDir()}, 1<<62, 0.1
	disks := 0
	m.deps.OnDisk = func(string, int64, int64) { disks++ }
	m.deps.Settling = func() (string, error) { return "DeleteMessage", errors.New("denied") }
	m.deps.PoolStatus = func() (devmapper.Status, error) {
		return devmapper.Status{Mode: devmapper.ModeReadOnly, UsedData: 99, TotalData: 100, TotalMetadata: 1}, nil
	}
	var seen devmapper.Status
	m.deps.OnPoolStatus = func(s devmapper.Status) { seen = s }
	m.JournalFailed(errors.New("disk I/O error"))
	m.PoolProved(devmapper.ErrForeign)
	if m.AcceptingWork() {
		t.Fatal("work is taken")
	}
	if seen.UsedData != 99 || disks != 2 {
		t.Error("gauges are stale while something else is amiss")
	}
	want := []Name{Database, PoolForeign, DiskLow, Settle, PoolReadOnly, PoolLow}
	for _, c := range m.Reasons().Conditions() {
		if (c.Err != nil) != slices.Contains(want, c.Name) {
			t.Errorf("%s: %v", c.Name, c.Err)
		}
	}
	if err := m.Reasons().Err(); !errors.Is(err, errDatabase) {
		t.Errorf("the first reason is %v", err)
	}
}

func TestPoolGone(t *testing.T) {
	m := newMonitor(t)
	m.deps.Settling = func() (string, error) { return "", nil }
	m.deps.PoolStatus = func() (devmapper.Status, error) { return devmapper.Status{}, devmapper.ErrNotFound }
	if err := m.checkCapacity()[PoolGone]; !errors.Is(err, devmapper.ErrNotFound) {
		t.Error(err)
	}
}

// A pool that has failed is read-only, and nothing is said of its space.
func TestPoolFailed(t *testing.T) {
	m := newMonitor(t)
	m.cfg.MinFreeData, m.cfg.MinFreeMetadata = 0.1, 0.1
	m.deps.Settling = func() (string, error) { return "", nil }
	m.deps.OnPoolStatus = func(devmapper.Status) {}
	m.deps.PoolStatus = func() (devmapper.Status, error) {
		return devmapper.Status{Mode: devmapper.ModeFailed, NeedsCheck: true}, nil
	}
	if lacks := m.checkCapacity(); !errors.Is(lacks[PoolReadOnly], devmapper.ErrReadOnly) || lacks[PoolLow] != nil {
		t.Error(lacks)
	}
}

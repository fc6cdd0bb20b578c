package devmapper

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"imagemanager.internal/internal/devmapper/ext4"
	"imagemanager.internal/internal/devmapper/tool"
)

// Stages work on their own devices at the same time, while somebody lists, grows the
// pool, and opens it from elsewhere.
func TestParallel(t *testing.T) {
	const workers, rounds = 6, 8
	p, cfg := newPool(t)
	newImage(t, p)
	check(t, p.Deactivate(1))
	var wg sync.WaitGroup
	each := func(n int, do func(i int) error) {
		wg.Go(func() {
			for i := range n {
				if err := do(i); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for w := range workers {
		each(rounds, func(i int) error { return lifeOf(p, ID(100*(w+1)+i), w%2 == 0) })
	}
	each(rounds, func(int) error { _, err := p.Thins(); return err })
	each(rounds, func(int) error { _, err := p.Active(); return err })
	each(rounds, func(i int) error { return p.GrowData(int64(513+i) * mib) })
	each(rounds, func(i int) error { return p.GrowMetadata(minMetadataSize + int64(i+1)*mib) })
	each(rounds, func(int) error {
		q, err := Open(t.Context(), cfg)
		if err != nil {
			return err
		}
		return q.Close()
	})
	wg.Wait()
	wantThins(t, p, 1)
	wantActive(t, p)
	s, err := p.Status()
	check(t, err)
	if s.Mode != ModeReadWrite || s.HeldRoot || s.UsedData != 2*minBlockSize || s.TotalData != (512+rounds)*mib ||
		s.TotalMetadata != minMetadataSize+rounds*mib {
		t.Errorf("%+v", s)
	}
}

// lifeOf takes a device, or a snapshot of device 1, from its creation to its end.
func lifeOf(p *Pool, id ID, snapshot bool) error {
	var err error
	kind := KindImage
	if snapshot {
		kind = KindSnapshot
		err = p.CreateSnapshot(id, 1)
	} else {
		err = p.CreateThin(id)
	}
	if err != nil {
		return err
	}
	if _, err := p.Activate(id, kind, deviceSize, false); err != nil {
		return err
	}
	if err := p.Discard(id); err != nil {
		return err
	}
	if err := p.Deactivate(id); err != nil {
		return err
	}
	return p.Delete(id)
}

// A child process that is just being started has copies of all descriptors until it has
// called exec, those of a mount that is closed at this moment included. Whoever needs the
// device for itself next waits for that.
func TestExclusiveUseWhileOthersFork(t *testing.T) {
	p, path, m := newMount(t)
	check(t, m.Close())
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := tool.Run(t.Context(), "/bin/true"); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	defer wg.Wait()
	defer close(stop)
	for i := range 60 {
		for _, mode := range []ext4.MountMode{ext4.MountBuild, ext4.MountInspect} {
			m, err := MountDetached(path, mode)
			if err != nil {
				t.Fatalf("round %d: %v", i, err)
			}
			check(t, m.Close())
		}
	}
	for i := range 60 {
		m, err := MountDetached(path, ext4.MountInspect)
		check(t, err)
		check(t, m.Close())
		f, err := openExclusive(path, 0)
		if err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		check(t, f.Close())
	}
	m, err := MountDetached(path, ext4.MountInspect)
	check(t, err)
	check(t, m.Close())
	check(t, p.Discard(1))
}

// Many want a free loop device at once, as after a reboot with several services that use
// them: all get one.
func TestManyLoops(t *testing.T) {
	needDM(t)
	dir := t.TempDir()
	var all sync.WaitGroup
	for i := range 12 {
		path := filepath.Join(dir, fmt.Sprintf("%d.img", i))
		check(t, os.WriteFile(path, nil, 0o600))
		check(t, os.Truncate(path, mib))
		all.Go(func() {
			for range 6 {
				loop, err := attachLoop(path)
				if err != nil {
					t.Error(err)
					continue
				}
				loop.Close()
			}
		})
	}
	all.Wait()
}

package devmapper

import (
	"testing"

	"github.com/google/uuid"

	"imagemanager.internal/internal/devmapper/ext4"
)

// idle makes a pool with a sealed image and n idle snapshots.
func idle(b *testing.B, n int) *Pool {
	b.Helper()
	cfg := newConfig(b, 4<<30, 256*mib)
	p := created(b, cfg)
	path := newImage(b, p)
	fill(b, path, 8*mib)
	check(b, p.Deactivate(1))
	for id := ID(2); id < ID(n)+2; id++ {
		check(b, p.CreateSnapshot(id, 1))
	}
	return p
}

// Each operation in its own line; the pool is small, with a thousand, and with five
// thousand snapshots.
func BenchmarkSnapshot(b *testing.B) {
	for name, n := range map[string]int{"idle=0": 0, "idle=1000": 1000, "idle=5000": 5000} {
		b.Run(name, func(b *testing.B) {
			p := idle(b, n)
			const id = ID(1 << 20)
			for _, op := range []struct {
				name            string
				before, do, end func() error
			}{
				{"create", nil, func() error { return p.CreateSnapshot(id, 1) }, func() error { return p.Delete(id) }},
				{"delete", func() error { return p.CreateSnapshot(id, 1) }, func() error { return p.Delete(id) }, nil},
				{
					"activate", func() error { return p.CreateSnapshot(id, 1) },
					func() error { return activate(p, id) },
					func() error { return gone(p, id) },
				},
				{
					"deactivate", func() error { return made(p, id) }, func() error { return p.Deactivate(id) },
					func() error { return p.Delete(id) },
				},
				{"status", nil, func() error { _, err := p.Status(); return err }, nil},
				{"thins", nil, func() error { _, err := p.Thins(); return err }, nil},
				{"active", nil, func() error { _, err := p.Active(); return err }, nil},
			} {
				b.Run(op.name, func(b *testing.B) {
					for b.Loop() {
						timeOnly(b, op.before, op.do, op.end)
					}
				})
			}
		})
	}
}

func timeOnly(b *testing.B, before, do, end func() error) {
	b.Helper()
	if before != nil {
		b.StopTimer()
		check(b, before())
		b.StartTimer()
	}
	check(b, do())
	if end != nil {
		b.StopTimer()
		check(b, end())
		b.StartTimer()
	}
}

func activate(p *Pool, id ID) error {
	_, err := p.Activate(id, KindSnapshot, deviceSize, false)
	return err
}

func made(p *Pool, id ID) error {
	if err := p.CreateSnapshot(id, 1); err != nil {
		return err
	}
	return activate(p, id)
}

func gone(p *Pool, id ID) error {
	if err := p.Deactivate(id); err != nil {
		return err
	}
	return p.Delete(id)
}

func BenchmarkFilesystem(b *testing.B) {
	p := created(b, newConfig(b, 4<<30, 64*mib))
	check(b, p.CreateThin(1))
	path, err := p.Activate(1, KindImage, 2<<30, false)
	check(b, err)
	b.Run("mkfs", func(b *testing.B) {
		for b.Loop() {
			check(b, MakeFilesystem(b.Context(), path, uuid.NewString()))
		}
	})
	b.Run("mount", func(b *testing.B) {
		for b.Loop() {
			m, err := MountDetached(path, ext4.MountBuild)
			check(b, err)
			check(b, m.Close())
		}
	})
	b.Run("discard", func(b *testing.B) {
		for b.Loop() {
			check(b, p.Discard(1))
		}
	})
}

package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Contexts end at any moment around BEGIN, the statements and COMMIT: what was said to be
// written is there, and the database works on.
func TestCancelledContexts(t *testing.T) {
	s := newStore(t)
	var mu sync.Mutex
	said, denied := map[string]bool{}, 0
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 400 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(4000))*time.Microsecond)
				key := fmt.Sprintf("images/%d-%d", g, i)
				_, _, err := s.Enqueue(ctx, Object{Bucket: "b", Key: key, ETag: "e"})
				cancel()
				mu.Lock()
				if err == nil {
					said[key] = true
				} else {
					denied++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for _, img := range must[[]Image](t)(s.Images(t.Context())) {
		delete(said, img.Key)
	}
	for key := range said {
		t.Errorf("%s was said to be written and is not there", key)
	}
	if err := s.Probe(t.Context()); err != nil {
		t.Error("afterwards: ", err)
	}
	if denied == 0 {
		t.Error("no context ended in time")
	}
}

// Several open a database that is not there yet: one makes it, and all of them open it.
func TestFirstOpenByMany(t *testing.T) {
	for round := range 20 {
		path := filepath.Join(t.TempDir(), "consumer.db")
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				s, err := Open(context.Background(), path)
				if err != nil {
					t.Errorf("round %d: %v", round, err)
					return
				}
				_ = s.Close()
			})
		}
		wg.Wait()
	}
}

// A backup onto a full disk, and one that is interrupted, fail and leave nothing behind.
func TestBackupOntoFullDisk(t *testing.T) {
	small := t.TempDir()
	if err := syscall.Mount("small", small, "tmpfs", 0, "size=256k"); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(small, 0) })
	s := newStore(t)
	for i := range 2000 {
		must[bool](t)(enqueue(t.Context(), s, i))
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for dir, ctx := range map[string]context.Context{small: t.Context(), t.TempDir(): cancelled} {
		if _, err := s.Backup(ctx, filepath.Join(dir, "backup.db"), false); err == nil {
			t.Error("a backup that cannot be whole is reported as made")
		}
		onlyFiles(t, dir)
	}
}

func enqueue(ctx context.Context, s *Store, n int) (bool, error) {
	_, created, err := s.Enqueue(ctx, object(n))
	return created, err
}

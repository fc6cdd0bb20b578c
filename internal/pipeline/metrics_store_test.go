package pipeline

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"imagemanager.internal/internal/store"
)

// The counts come from the journal, so a restart keeps them. While it cannot be read, a
// scrape lacks them, and has everything else.
func TestJournalIsCounted(t *testing.T) {
	p := newPipeline(t)
	enqueue(t, p, 3)
	reg := prometheus.NewRegistry()
	NewMetrics(reg, p.store)
	got := series(t, reg)
	if n := got["imagemanager_images pending"]; n != 3 {
		t.Errorf("%g images are pending, want 3", n)
	}
	for _, name := range []string{"imagemanager_images", "imagemanager_devices"} {
		if n := samples(t, reg, name); n == 0 {
			t.Errorf("no series of %s", name)
		}
	}
	if err := p.store.Close(); err != nil {
		t.Fatal(err)
	}
	if n := samples(t, reg, "imagemanager_images"); n != 0 {
		t.Errorf("%d counts of a journal that cannot be read", n)
	}
	if n := samples(t, reg, "imagemanager_jobs_total"); n == 0 {
		t.Error("nothing else is left")
	}
}

// samples returns how many series a family has.
func samples(t *testing.T, reg prometheus.Gatherer, name string) int {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return len(f.GetMetric())
		}
	}
	return 0
}

// BenchmarkScrape is a scrape with 10,000 images in the journal. It ought to take no more
// than 5 ms.
func BenchmarkScrape(b *testing.B) {
	s, err := store.Open(b.Context(), filepath.Join(b.TempDir(), "c.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for i := range 10_000 {
		o := store.Object{Bucket: "b", Key: fmt.Sprintf("images/%d.tar", i), ETag: "e"}
		if _, _, err := s.Enqueue(b.Context(), o); err != nil {
			b.Fatal(err)
		}
	}
	reg := prometheus.NewRegistry()
	NewMetrics(reg, s)
	for b.Loop() {
		if _, err := reg.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}

package soak

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"imagemanager.internal/internal/store"
)

const (
	mostWAL   = 16 << 20 // bytes
	unpacks   = 400      // fewer do not show whether their cost is flat: the first have the host for themselves
	samples   = 40       // likewise
	mostRatio = 2        // of the last quarter to the first: machines are shared
)

// checkCosts checks that an image costs in the end what it cost at first, and the daemon
// keeps no more.
func (s *soak) checkCosts() {
	s.T.Helper()
	times := s.unpackTimes()
	if first, last := quarters(times); len(times) >= unpacks {
		a, b := median(first), median(last)
		fmt.Printf("  unpack, median of first and last quarter of %d: %v, %v\n", len(times), a, b)
		if b > mostRatio*a {
			s.Errorf("unpacking took %v at first and %v in the end", a, b)
		}
	}
	for _, p := range s.samples {
		if p.wal > mostWAL {
			s.Errorf("after %s the write-ahead log had %d bytes", p.after.Round(time.Second), p.wal)
			break
		}
	}
	for _, of := range []struct {
		what   string
		enough float64 // more than this is work of the next quarter, not a leak
		value  func(p sample) float64
	}{
		{"resident memory", 16e6, func(p sample) float64 { return p.rss }},
		{"open descriptors", 16, func(p sample) float64 { return p.descriptors }},
		{"goroutines", 32, func(p sample) float64 { return p.goroutines }},
	} {
		var list []float64
		for _, p := range s.samples {
			if v := of.value(p); v > 0 {
				list = append(list, v)
			}
		}
		first, last := quarters(list)
		a, b := median(first), median(last)
		fmt.Printf("  %s, median of first and last quarter: %.0f, %.0f\n", of.what, a, b)
		if len(list) >= samples && b > 1.5*a+of.enough {
			s.Errorf("%s grew from %.0f to %.0f", of.what, a, b)
		}
	}
}

// quarters are the first and the last quarter of a list.
func quarters[T any](list []T) (first, last []T) {
	n := len(list) / 4
	return list[:n], list[len(list)-n:]
}

// unpackTimes are the times that unpacking took, in order.
func (s *soak) unpackTimes() (list []time.Duration) {
	s.T.Helper()
	type attempt struct{ image, n int64 }
	begun := map[attempt]time.Time{}
	for seq := int64(0); ; {
		events, err := s.Store.Since(s.T.Context(), seq)
		s.Check(err)
		if len(events) == 0 {
			return list
		}
		for _, e := range events {
			seq = e.Seq
			at := attempt{e.Image, e.Attempt}
			if e.Stage != store.StageUnpack {
				continue
			}
			switch e.Kind {
			case store.EventBegun:
				begun[at] = e.At
			case store.EventDone:
				list = append(list, e.At.Sub(begun[at]))
			}
		}
	}
}

// report prints what was done and found.
func (s *soak) report() {
	counts, err := s.Store.Counts(s.T.Context())
	s.Check(err)
	fmt.Printf("\n  seed %d, %d steps in %s\n", s.seed, s.steps, time.Since(s.began).Round(time.Second))
	for _, name := range slices.Sorted(maps.Keys(s.counts)) {
		fmt.Printf("  %-34s %5d\n", name, s.counts[name])
	}
	fmt.Printf("  images: %v\n  failures: %d\n", counts, len(s.failures))
	for _, text := range slices.Sorted(maps.Keys(s.failures)) {
		fmt.Printf("    %d × %s\n", s.failures[text], text)
	}
}

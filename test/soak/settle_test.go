package soak

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"imagemanager.internal/internal/store"
	"imagemanager.internal/test/invariants"
)

// settle lets the daemon come to an end with all that it was given, and looks at what is
// there: at what it does not owe anybody, it must have nothing left.
func (s *soak) settle() {
	s.T.Helper()
	s.Cloud.Emulator.Clear()
	select {
	case <-s.Done(): // and nobody has sampled since
		s.Errorf("the daemon ended by itself, exit code %d: %s", s.ExitCode(), s.lastWords())
		s.start()
	default:
	}
	s.backfill(nil)
	fmt.Printf("%s  the daemon finishes what there is\n", time.Now().Format(time.TimeOnly))
	s.waitAtRest()
	for _, text := range s.mismatches() {
		s.Errorf("%s", text)
	}
	s.checkIdle()
	s.unmountAll()
	s.sample()
	fmt.Printf("%s  users find what they wrote to snapshots: %d files\n",
		time.Now().Format(time.TimeOnly), s.checkAllFiles())
	s.run("verify", "--all")
	s.stop()
	s.checkActivatedOnce()
	s.checkInvariants("in the end")
	s.checkCosts()
	s.removeAll()
}

// checkInvariants looks at a host on which no daemon runs.
func (s *soak) checkInvariants(when string) invariants.Host {
	s.T.Helper()
	found, err := invariants.Look(s.T.Context(), s.Store, s.State)
	s.Check(err)
	if b := found.Broken(); len(b) > 0 {
		s.Errorf("%s %d things do not hold, such as %q", when, len(b), b[:min(len(b), 5)])
	}
	return found
}

// waitAtRest waits until all is as it must be, or nothing will change any more, or for
// three minutes.
func (s *soak) waitAtRest() {
	s.T.Helper()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	rests := 0
	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); <-tick.C {
		if s.count(store.StatePending) > 0 || !s.IsDrained() {
			rests = 0
			continue
		}
		if rests++; rests > 6 || len(s.mismatches()) == 0 {
			return
		}
	}
	s.Errorf("three minutes after the last upload %d images are pending", s.count(store.StatePending))
}

// checkIdle checks a daemon that has nothing to do.
func (s *soak) checkIdle() {
	s.T.Helper()
	if !s.IsDrained() {
		s.Errorf("the queue is not empty")
	}
	if code, text := s.Get("/readyz"); code != 200 {
		s.Errorf("/readyz: %d %s", code, text)
	}
	list, err := s.Store.QuarantinedMessages(s.T.Context())
	s.Check(err)
	for _, q := range list {
		s.Errorf("in quarantine: %s", q.Reason)
	}
	deadline := time.Now().Add(20 * time.Second) // of several reconciles
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		_, text := s.Get("/metrics")
		n := unclaimed(text)
		if n == 0 {
			break
		}
		if time.Now().After(deadline) {
			s.Errorf("%v things are unclaimed", n)
			break
		}
		<-tick.C
	}
	if out, ok := s.run("reconcile", "--dry-run"); ok && !strings.Contains(out, "nothing to do") {
		s.Errorf("a reconcile would still do something: %s", out)
	}
}

// checkActivatedOnce checks that no image was made again: it has had one snapshot from
// every time that it was asked for, and from every `consumer snapshot`.
func (s *soak) checkActivatedOnce() {
	s.T.Helper()
	for _, o := range s.objects {
		for _, v := range o.versions {
			if !v.seen || v.broken {
				continue
			}
			events, err := s.Store.History(s.T.Context(), v.image)
			s.Check(err)
			made := 0
			for _, e := range events {
				if e.Kind == store.EventDone && e.Stage == store.StageActivate {
					made++
				}
			}
			if made != v.made {
				s.failVersion(v, "%s: of image %d %d snapshots were made, and %d were asked for", o.key, v.image, made,
					v.made)
			}
		}
	}
}

// removeAll removes every image: the pool and the files are as they were at the
// beginning.
func (s *soak) removeAll() {
	s.T.Helper()
	images, err := s.Store.Images(s.T.Context())
	s.Check(err)
	for _, img := range images {
		if img.State == store.StateActive {
			s.run("rm", "--force", fmt.Sprint(img.ID))
		}
	}
	found := s.checkInvariants("after the removal of everything")
	if len(found.Thins)+len(found.Active)+len(found.Files) > 0 {
		s.Errorf("after the removal of everything there are %d thin devices, %d active ones, %d files",
			len(found.Thins), len(found.Active), len(found.Files))
	}
	if found.Pool.UsedData > s.empty {
		s.Errorf("the empty pool uses %d bytes, and used %d when it was made", found.Pool.UsedData, s.empty)
	}
}

// median of a list, 0 of none.
func median[T time.Duration | float64](list []T) T {
	if len(list) == 0 {
		return 0
	}
	list = slices.Clone(list)
	slices.Sort(list)
	return list[len(list)/2]
}

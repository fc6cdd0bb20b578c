package soak

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"imagemanager.internal/internal/store"
	machine "imagemanager.internal/test/host"
)

const (
	workers      = 4
	backlog      = 8  // with this many images pending nothing is uploaded for a while
	mostImages   = 30 // above this, images are removed until there are
	fewImages    = 12
	mostFailures = 25
)

// soak is one run.
type soak struct {
	*machine.Host
	model

	seed   uint64
	began  time.Time
	kept   string        // directory for log and journal of a run that fails; empty: none
	length time.Duration // 0: the short form
	empty  int64         // bytes of the pool that an empty one uses

	over     chan struct{} // closed when no further step is to begin
	finished sync.Once

	// daemonMu is held while a step ends or starts the daemon, or needs it running;
	// troubleMu while S3 and SQS misbehave, or must not; putMu during an upload; removeMu
	// while room is made.
	daemonMu, troubleMu, putMu, removeMu sync.Mutex
	killed                               map[int64]bool // images that a kill has interrupted

	mu       sync.Mutex // guards what follows
	ahead    []op       // steps of this round that have not begun
	rounds   uint64
	steps    uint64
	counts   map[string]int // what was done, by name
	failures map[string]int // how often each
	samples  []sample
}

// op is one kind of step. do reports whether there was something to do it to.
type op struct {
	name string
	n    int // in a round
	do   func(s *soak, r *rand.Rand) bool
	ends bool // the daemon: in the first half only
}

var ops = []op{
	{"upload", 12, (*soak).upload, false},
	{"upload, its download in trouble", 5, (*soak).uploadInTrouble, false},
	{"upload, its event lost", 4, (*soak).uploadUnheard, false},
	{"upload, hostile", 6, (*soak).uploadHostile, false},
	{"overwrite", 5, (*soak).overwrite, false},
	{"overwrite, and back", 4, (*soak).overwriteAndBack, false},
	{"same bytes again", 4, (*soak).uploadAgain, false},
	{"delete", 4, (*soak).deleteObject, false},
	{"use a snapshot", 20, (*soak).use, false},
	{"take a snapshot", 6, (*soak).takeSnapshot, false},
	{"rm a snapshot", 4, (*soak).removeSnapshot, false},
	{"rm an image", 6, (*soak).removeImage, false},
	{"verify", 3, (*soak).verify, false},
	{"verify --all", 2, (*soak).verifyAll, false},
	{"submit", 4, (*soak).submit, false},
	{"backfill", 2, (*soak).backfill, false},
	{"look", 3, (*soak).lookAround, false},
	{"fault of all", 5, (*soak).fault, false},
	{"kill", 3, (*soak).kill, true},
	{"restart", 2, (*soak).restart, true},
}

// round returns the steps of a round, in an order of its own.
func (s *soak) round(n uint64) (steps []op) {
	r := rand.New(rand.NewPCG(s.seed, n)) //nolint:gosec // the same again for the same seed
	var enders []op
	for _, o := range ops {
		if list := slices.Repeat([]op{o}, o.n); o.ends {
			enders = append(enders, list...)
		} else {
			steps = append(steps, list...)
		}
	}
	r.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
	most := len(steps)
	if s.length == 0 {
		most /= 2
	}
	for _, o := range enders {
		steps = slices.Insert(steps, r.IntN(most), o)
	}
	return steps
}

// mix runs the steps, several at once, and samples.
func (s *soak) mix() {
	first := rand.New(rand.NewPCG(s.seed, 0)) //nolint:gosec // the same again for the same seed
	for range backlog / 2 {
		s.upload(first)
	}
	s.WaitFor("there is something to work with", func() bool { return s.count(store.StateActive) >= backlog/2 })
	var all sync.WaitGroup
	for range workers {
		all.Go(s.work)
	}
	ended := make(chan struct{})
	go func() { all.Wait(); close(ended) }()
	every := 5 * time.Second
	if s.length == 0 {
		every = 2 * time.Second
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.sample()
		case <-ended:
			return
		}
	}
}

// work does one step after the other. Where there is nothing to do one thing to, and is
// not in a while, another image is uploaded.
func (s *soak) work() {
	for {
		o, n := s.next()
		if n == 0 {
			return
		}
		if o.ends && s.isLate() {
			continue
		}
		r := rand.New(rand.NewPCG(s.seed, n)) //nolint:gosec // the same again for the same seed
		done := o.do(s, r)
		for range 20 {
			if done || s.isOver() {
				break
			}
			s.pause(100 * time.Millisecond)
			done = o.do(s, r)
		}
		switch {
		case done:
			s.recordStep(o.name)
		case s.upload(r):
			s.recordStep("upload instead")
		}
	}
}

// next returns the step that is to begin, and its number; 0 if the run is over.
func (s *soak) next() (o op, n uint64) {
	if s.isOver() {
		return o, 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ahead) == 0 {
		if s.rounds == 1 && s.length == 0 {
			return o, 0
		}
		s.ahead = s.round(s.rounds)
		s.rounds++
	}
	o, s.ahead = s.ahead[0], s.ahead[1:]
	s.steps++
	return o, s.steps
}

// isLate reports whether the daemon is to be left alone. In the short form it is because
// no step of the second half of a round ends it.
func (s *soak) isLate() bool { return s.length > 0 && 2*time.Since(s.began) > s.length }

func (s *soak) recordStep(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.counts == nil {
		s.counts = map[string]int{}
	}
	s.counts[name]++
}

// note keeps a failure; too many end the run.
func (s *soak) note(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first, _, _ := strings.Cut(text, "\n")
	fmt.Printf("%s  FAILURE: %s\n", time.Now().Format(time.TimeOnly), first)
	if s.failures == nil {
		s.failures = map[string]int{}
	}
	if s.failures[first]++; len(s.failures) >= mostFailures {
		s.finish()
	}
}

func (s *soak) finish() { s.finished.Do(func() { close(s.over) }) }

func (s *soak) isOver() bool {
	select {
	case <-s.over:
		return true
	default:
		return false
	}
}

// pause waits, but not beyond the end of the run.
func (s *soak) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.over:
	}
}

// waitForRoom gives the daemon time to work off its backlog, within a limit: it may be
// kept from its work.
func (s *soak) waitForRoom() {
	for range 50 {
		if s.count(store.StatePending) < backlog || s.isOver() {
			return
		}
		s.pause(50 * time.Millisecond)
	}
}

// count counts the images in these states.
func (s *soak) count(states ...store.State) (n int) {
	counts, err := s.Store.Counts(s.T.Context())
	s.Check(err)
	for _, st := range states {
		n += counts[st]
	}
	return n
}

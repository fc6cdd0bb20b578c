package emulator

import (
	"slices"
	"sync"
	"time"
)

// Clock is where the emulator takes the time from.
type Clock interface {
	Now() time.Time
	// Timer returns a channel that is closed or sent to once d has passed, and a function
	// that gives the timer up. d may be negative.
	Timer(d time.Duration) (<-chan time.Time, func())
}

type wallClock struct{}

// Now is the time of the machine, or of a testing/synctest bubble.
func (wallClock) Now() time.Time { return time.Now() }

// Timer is a time.Timer.
func (wallClock) Timer(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTimer(d)
	return t.C, func() { t.Stop() }
}

// ManualClock is a [Clock] that moves only when told to. With it, a long poll that finds
// nothing ends when the clock has been moved by its wait, not before.
type ManualClock struct {
	mu     sync.Mutex
	now    time.Time
	timers []*manualTimer
}

type manualTimer struct {
	at time.Time
	c  chan time.Time // holds one: the clock never waits for a receiver
}

// NewManualClock returns a clock that stands at start.
func NewManualClock(start time.Time) *ManualClock { return &ManualClock{now: start} }

// Now is where the clock stands.
func (c *ManualClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Timer fires when Advance has moved the clock by d or more.
func (c *ManualClock) Timer(d time.Duration) (<-chan time.Time, func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &manualTimer{at: c.now.Add(d), c: make(chan time.Time, 1)}
	c.timers = append(c.timers, t)
	c.fire()
	return t.c, func() { c.stop(t) }
}

// Advance moves the clock and fires the timers that are due.
func (c *ManualClock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	c.fire()
}

func (c *ManualClock) fire() {
	c.timers = slices.DeleteFunc(c.timers, func(t *manualTimer) bool {
		if t.at.After(c.now) {
			return false
		}
		t.c <- c.now
		return true
	})
}

func (c *ManualClock) stop(t *manualTimer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timers = slices.DeleteFunc(c.timers, func(o *manualTimer) bool { return o == t })
}

package health

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// ErrStuck is returned for a loop of the daemon that is not heard of any more.
var ErrStuck = errors.New("stuck")

// overdue is how long a loop may be late. Far more than a busy machine needs: a restart
// rolls back whatever is under way.
const overdue = time.Minute

// Loop is a loop that lives as long as the daemon.
type Loop int

// The loops with a pulse.
const (
	Beating Loop = iota // of Monitor.Beat
	Polling             // the receiving of messages
	loops
)

func (l Loop) String() string { return [...]string{"the heartbeat", "a poll of the queue"}[l] }

// Pulse tells whether the daemon lives. A liveness probe asks, and restarts the daemon.
// So Pulse speaks up only for what a restart mends: a lock that nobody frees, a poll that
// does not heed its own deadline. A loop promises to be heard of again, and makes no
// promise while it waits for others.
//
//   - Intake waits for room in the stages. They have time-outs of their own.
//   - SQS, S3 or the database fail: each call ends, and /readyz says so.
//   - A disk or the pool does not answer the kernel. The process would outlive its own
//     end, and the next would wait at the same place. For the same reason a stage given
//     up as stuck does not count: its worker is free again.
//   - Recovery takes as long as it takes, and would begin again.
//
// Its clock stands still while the machine sleeps.
type Pulse struct {
	began time.Time
	due   [loops]atomic.Int64 // nanoseconds since began; 0: no promise
}

func newPulse() *Pulse { return &Pulse{began: time.Now()} }

// Promise says that the loop is heard of again within d.
func (p *Pulse) Promise(l Loop, d time.Duration) { p.due[l].Store(int64(time.Since(p.began) + d)) }

// Rest takes the loop's promise back.
func (p *Pulse) Rest(l Loop) { p.due[l].Store(0) }

// Stuck returns ErrStuck with the loop that broke its promise; nil if none did. It takes
// no lock.
func (p *Pulse) Stuck() error {
	for l := range loops {
		due := time.Duration(p.due[l].Load())
		if late := time.Since(p.began) - due; due != 0 && late > overdue {
			return fmt.Errorf("%w: %s is late by %s: start the daemon again, and report what "+
				"/debug/pprof/goroutine?debug=2 shows", ErrStuck, l, late.Round(time.Second))
		}
	}
	return nil
}

// beat calls touch once a second until ctx ends.
func (p *Pulse) beat(ctx context.Context, touch func()) {
	defer p.Rest(Beating)
	for {
		p.Promise(Beating, time.Second)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return
		}
		touch()
	}
}

package health

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A lock that nobody frees is said, and no longer once it is free.
func TestBeatBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		lock := make(chan struct{}, 1)
		p := newPulse()
		go p.beat(ctx, func() { lock <- struct{}{}; <-lock })
		time.Sleep(10 * time.Hour) //nolint:forbidigo // of the bubble's clock
		if err := p.Stuck(); err != nil {
			t.Error(err)
		}
		lock <- struct{}{}
		time.Sleep(overdue) //nolint:forbidigo // of the bubble's clock
		if err := p.Stuck(); err != nil {
			t.Errorf("too early: %v", err)
		}
		time.Sleep(3 * time.Second) //nolint:forbidigo // of the bubble's clock
		if err := p.Stuck(); !errors.Is(err, ErrStuck) || !strings.Contains(err.Error(), Beating.String()) {
			t.Errorf("%v", err)
		}
		<-lock
		synctest.Wait()
		if err := p.Stuck(); err != nil {
			t.Errorf("the lock is free again: %v", err)
		}
		cancel()
		synctest.Wait()
		time.Sleep(time.Hour) //nolint:forbidigo // of the bubble's clock
		if err := p.Stuck(); err != nil {
			t.Errorf("the loop has ended: %v", err)
		}
	})
}

// While the daemon is stuck nothing else is asked: it may be behind the lock in question.
func TestStuckAsksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMonitor(t)
		m.Pulse.Promise(Polling, time.Second)
		time.Sleep(time.Hour) //nolint:forbidigo // of the bubble's clock
		m.mu.Lock()
		err := m.Reasons()[Stuck]
		m.mu.Unlock()
		if !errors.Is(err, ErrStuck) {
			t.Error(err)
		}
	})
}

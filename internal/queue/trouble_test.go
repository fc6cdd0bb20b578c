package queue

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/smithy-go"

	"imagemanager.internal/internal/awserr"
)

// A missing right is told at the first extension that fails for it, also when nothing is
// held any more, and its return within seconds.
func TestTroubleDenied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		var r record
		c, stop := running(t, f, Config{Visibility: 20 * time.Second, Observer: r.observer()})
		defer stop()
		f.faults(func(operation, _ string) error {
			if operation == "change" {
				return apiError("AccessDenied", smithy.FaultClient)
			}
			return nil
		})
		m := held(t, f, c, 1)[0]
		pass(9 * time.Second)
		if _, err := c.Trouble(); err != nil {
			t.Errorf("before anything was tried: %v", err)
		}
		pass(2 * time.Second)
		if _, err := c.Trouble(); awserr.Classify(err) != awserr.Denied || r.failures("extend") == 0 {
			t.Errorf("the first extension was denied: %v, observed %d times", err, r.failures("extend"))
		}
		pass(10 * time.Minute)
		if _, err := c.Trouble(); !isLost(m) || awserr.Classify(err) != awserr.Denied {
			t.Errorf("nothing is held any more: %v", err)
		}
		if n := f.count("change"); n < 110 || n > 140 {
			t.Errorf("asked %d times in ten minutes, want once in %s", n, probeEvery)
		}
		f.faults(nil)
		pass(probeEvery)
		if _, err := c.Trouble(); err != nil {
			t.Errorf("the right is there again: %v", err)
		}
		before := f.count("change")
		pass(time.Hour)
		if n := f.count("change"); n != before {
			t.Errorf("%d calls for nothing", n-before)
		}
	})
}

// What may pass by itself is told when it has gone on for a while, and a message held
// then is the probe.
func TestTroubleThatPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c, stop := running(t, f, Config{Visibility: 40 * time.Second})
		defer stop()
		f.faults(func(operation, _ string) error {
			if operation == "change" {
				return apiError("ServiceUnavailable", smithy.FaultServer)
			}
			return nil
		})
		m := held(t, f, c, 1)[0]
		pass(25 * time.Second)
		if _, err := c.Trouble(); err != nil {
			t.Errorf("5 s of it: %v", err)
		}
		pass(6 * time.Second)
		if _, err := c.Trouble(); awserr.Classify(err) != awserr.Server {
			t.Errorf("11 s of it: %v", err)
		}
		f.faults(nil)
		pass(5 * time.Second)
		if _, err := c.Trouble(); err != nil || isLost(m) {
			t.Errorf("over: %v, lost %t", err, isLost(m))
		}
	})
}

// A release that is denied tells of the same, and is asked about though nothing else
// happens.
func TestTroubleWithReleases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c, stop := running(t, f, Config{})
		defer stop()
		m := held(t, f, c, 1)[0]
		calls := 0
		f.faults(func(operation, handle string) error {
			if operation == "change" && handle == "" {
				calls++
			}
			if operation == "change" && calls < 3 {
				return apiError("AccessDenied", smithy.FaultClient)
			}
			return nil
		})
		if err := c.Release(t.Context(), m, 0); awserr.Classify(err) != awserr.Denied {
			t.Error(err)
		}
		if call, err := c.Trouble(); call != "ChangeMessageVisibility" || awserr.Classify(err) != awserr.Denied {
			t.Errorf("%s: %v", call, err)
		}
		pass(3 * probeEvery)
		if call, err := c.Trouble(); err != nil {
			t.Errorf("the right is there again: %s: %v", call, err)
		}
	})
}

// The same with the right to delete. What is done is not received again and again
// meanwhile: that is the caller's part.
func TestTroubleWithDeletes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c, stop := running(t, f, Config{})
		defer stop()
		f.faults(func(operation, _ string) error {
			if operation == "delete" {
				return apiError("AccessDenied", smithy.FaultClient)
			}
			return nil
		})
		if err := c.Delete(t.Context(), held(t, f, c, 1)[0]); awserr.Classify(err) != awserr.Denied {
			t.Error(err)
		}
		pass(time.Minute)
		if call, err := c.Trouble(); call != "DeleteMessage" || awserr.Classify(err) != awserr.Denied {
			t.Errorf("%s: %v", call, err)
		}
		f.faults(nil)
		pass(probeEvery)
		if call, err := c.Trouble(); err != nil || f.left() != 1 {
			t.Errorf("the right is there again: %s: %v; %d left", call, err, f.left())
		}
	})
}

// Messages of others among those extended are no reason for trouble: they were answered.
func TestNoTroubleForOneMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c, stop := running(t, f, Config{Visibility: 20 * time.Second})
		defer stop()
		msgs := held(t, f, c, 2)
		f.faults(func(operation, handle string) error {
			if operation == "change" && handle == msgs[0].lease.handle {
				return apiError("AccessDenied", smithy.FaultClient)
			}
			return nil
		})
		pass(12 * time.Second)
		if _, err := c.Trouble(); err != nil {
			t.Error(err)
		}
	})
}

package health

import (
	"context"
	"fmt"
	"time"

	"imagemanager.internal/internal/queue"
)

// longestForeign is the longest pause between two messages while all are foreign.
const longestForeign = 15 * time.Minute

// foreign counts messages about other buckets or prefixes until one is about ours. A slip
// in the configuration looks like that, and must not empty the queue. It counts no more
// once a message was ours, or the journal has an image of ours.
type foreign struct {
	ours  bool // proved
	n     int
	last  string        // what the last one was about
	want  string        // what ours would be about
	pause time.Duration // until the next message is looked at; each one is returned for as long
	next  time.Time
}

// why returns an error if every message was foreign.
func (f *foreign) why() error {
	if f.n == 0 {
		return nil
	}
	return fmt.Errorf("every message so far is about something else, %d of them, the last about %s, "+
		"and this daemon takes %s: they stay in the queue, and are looked at one by one until one is ours: "+
		"correct S3_BUCKET or S3_PREFIX, or the bucket's notification", f.n, f.last, f.want)
}

// NoteOurs notes that an object is one of ours.
func (m *Monitor) NoteOurs() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.foreign = foreign{ours: true}
}

// NoteForeign notes a foreign object and reports whether all have been. Then it also says
// for how long to return the object's message.
func (m *Monitor) NoteForeign(o queue.Object) (all bool, delay time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.foreign.ours {
		return false, 0
	}
	f := &m.foreign
	f.n++
	f.last = fmt.Sprintf("s3://%s/%s", o.Bucket, o.Key)
	f.want = fmt.Sprintf("s3://%s/%s…", m.cfg.Bucket, m.cfg.Prefix)
	f.pause = max(f.pause, 2*time.Second)
	f.next = time.Now().Add(f.pause)
	return true, f.pause
}

// nextForeign returns how long to wait until the next message is looked at while all are
// foreign, and whether they are.
func (m *Monitor) nextForeign() (pause time.Duration, all bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return max(0, time.Until(m.foreign.next)), m.foreign.n > 0
}

// lengthenForeign doubles the pause with each look at a message while all are foreign.
func (m *Monitor) lengthenForeign() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.foreign.pause = min(2*m.foreign.pause, longestForeign)
}

// ProveOurs asks the journal whether bucket and prefix ever named an image.
func (m *Monitor) ProveOurs(ctx context.Context) {
	if found, err := m.deps.Store.AnyWithPrefix(ctx, m.cfg.Bucket, m.cfg.Prefix); err == nil && found {
		m.NoteOurs()
	}
}

// OneByOne reports whether messages are taken one by one, and how long to wait until the
// next.
func (m *Monitor) OneByOne() (pause time.Duration, oneByOne bool) {
	pause, oneByOne = m.nextForeign()
	if trial, streak := m.Breaker.nextTrial(); streak {
		pause, oneByOne = max(pause, trial), true
	}
	return pause, oneByOne
}

// AwaitTrial waits, while messages are taken one by one, until none is held and it is
// time for the next. It reports whether they are taken so.
func (m *Monitor) AwaitTrial(ctx context.Context, held func() int) bool {
	for ctx.Err() == nil {
		pause, oneByOne := m.OneByOne()
		if !oneByOne {
			return false
		}
		if pause == 0 && held() == 0 {
			m.Breaker.noteTrial()
			m.lengthenForeign()
			return true
		}
		select {
		case <-time.After(min(max(pause, 50*time.Millisecond), time.Second)):
		case <-ctx.Done():
		}
	}
	return true
}

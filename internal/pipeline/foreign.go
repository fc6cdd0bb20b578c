package pipeline

import (
	"context"
	"fmt"
	"time"

	"imagemanager.internal/internal/queue"
)

// longestForeign is the longest pause between two messages while all are foreign.
const longestForeign = 15 * time.Minute

// foreign counts messages about other buckets or prefixes while none was about ours: a
// slip in the configuration looks like that, and must not empty the queue. Once one was
// ours, or the journal has an image of ours, it counts no more.
type foreign struct {
	ours  bool // proved
	n     int
	about string        // the last one
	want  string        // what ours would be about
	pause time.Duration // until the next message is looked at, and for each of them
	next  time.Time
}

// why says that every message is foreign, nil if that is not so.
func (f *foreign) why() error {
	if f.n == 0 {
		return nil
	}
	return fmt.Errorf("every message so far is about something else, %d of them, the last about %s, and this daemon takes %s: they stay in the queue, and are looked at one by one until one is ours: correct S3_BUCKET or S3_PREFIX, or the bucket's notification",
		f.n, f.about, f.want)
}

// ours notes that an object is one of ours.
func (c *condition) ours() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.foreign = foreign{ours: true}
}

// allForeign notes a foreign object and reports whether all have been: then how long its
// message is to stay away.
func (c *condition) allForeign(o queue.Object, want string) (all bool, away time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.foreign.ours {
		return false, 0
	}
	f := &c.foreign
	f.n++
	f.about, f.want = fmt.Sprintf("s3://%s/%s", o.Bucket, o.Key), want
	f.pause = max(f.pause, 2*time.Second)
	f.next = time.Now().Add(f.pause)
	return true, f.pause
}

// foreignWait is how long until the next message is looked at while all are foreign, and
// whether they are.
func (c *condition) foreignWait() (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(0, time.Until(c.foreign.next)), c.foreign.n > 0
}

// tryForeign notes that one more message is looked at while all are foreign.
func (c *condition) tryForeign() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.foreign.pause = min(2*c.foreign.pause, longestForeign)
}

// proveOurs asks the journal whether bucket and prefix ever named an image.
func (p *Pipeline) proveOurs(ctx context.Context) {
	if is, err := p.Store.AnyUnder(ctx, p.cfg.Bucket, p.cfg.Prefix); err == nil && is {
		p.condition.ours()
	}
}

// careful reports whether messages are taken one by one, and how long to wait until the
// next.
func (p *Pipeline) careful() (pause time.Duration, careful bool) {
	pause, careful = p.condition.foreignWait()
	if trial, alike := p.breaker.trialIn(); alike {
		pause, careful = max(pause, trial), true
	}
	return pause, careful
}

// awaitTrial waits, while messages are taken one by one, until it is time for the next.
// It reports whether they are.
func (p *Pipeline) awaitTrial(ctx context.Context) bool {
	for ctx.Err() == nil {
		pause, careful := p.careful()
		if !careful {
			return false
		}
		if pause == 0 && len(p.permits) == 0 {
			p.breaker.tried()
			p.condition.tryForeign()
			return true
		}
		wait(ctx, min(max(pause, 50*time.Millisecond), time.Second))
	}
	return true
}

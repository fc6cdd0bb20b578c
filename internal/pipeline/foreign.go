package pipeline

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

// noteOurs notes that an object is one of ours.
func (h *health) noteOurs() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.foreign = foreign{ours: true}
}

// noteForeign notes a foreign object and reports whether all have been. Then it also says
// for how long to return the object's message.
func (h *health) noteForeign(o queue.Object) (all bool, delay time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.foreign.ours {
		return false, 0
	}
	f := &h.foreign
	f.n++
	f.last = fmt.Sprintf("s3://%s/%s", o.Bucket, o.Key)
	f.want = fmt.Sprintf("s3://%s/%s…", h.cfg.Bucket, h.cfg.Prefix)
	f.pause = max(f.pause, 2*time.Second)
	f.next = time.Now().Add(f.pause)
	return true, f.pause
}

// nextForeign returns how long to wait until the next message is looked at while all are
// foreign, and whether they are.
func (h *health) nextForeign() (pause time.Duration, all bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return max(0, time.Until(h.foreign.next)), h.foreign.n > 0
}

// lengthenForeign doubles the pause with each look at a message while all are foreign.
func (h *health) lengthenForeign() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.foreign.pause = min(2*h.foreign.pause, longestForeign)
}

// proveOurs asks the journal whether bucket and prefix ever named an image.
func (h *health) proveOurs(ctx context.Context) {
	if found, err := h.store.AnyUnder(ctx, h.cfg.Bucket, h.cfg.Prefix); err == nil && found {
		h.noteOurs()
	}
}

// oneByOne reports whether messages are taken one by one, and how long to wait until the
// next.
func (h *health) oneByOne() (pause time.Duration, oneByOne bool) {
	pause, oneByOne = h.nextForeign()
	if trial, streak := h.breaker.nextTrial(); streak {
		pause, oneByOne = max(pause, trial), true
	}
	return pause, oneByOne
}

// awaitTrial waits, while messages are taken one by one, until none is held and it is
// time for the next. It reports whether they are taken so.
func (h *health) awaitTrial(ctx context.Context, held func() int) bool {
	for ctx.Err() == nil {
		pause, oneByOne := h.oneByOne()
		if !oneByOne {
			return false
		}
		if pause == 0 && held() == 0 {
			h.breaker.noteTrial()
			h.lengthenForeign()
			return true
		}
		wait(ctx, min(max(pause, 50*time.Millisecond), time.Second))
	}
	return true
}

package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/queue"
	"imagemanager.internal/internal/store"
)

const (
	// alike is how many failures in a row, without a success between, are an outage and
	// no image's fault.
	alike = 3
	// longestTrial is the longest pause between two trials during an outage.
	longestTrial = 15 * time.Second
	// longestOutage is the longest an image waits for its next attempt during an outage.
	longestOutage = time.Minute
	// probeTimeout bounds one look at the bucket.
	probeTimeout = 10 * time.Second
)

// breaker tells outages (of S3, credentials, network, a tool, a right) from an image's
// own faults. Each failure that may be an outage is weighed by what else happened at its
// stage: while nothing succeeds it is held against nobody, after a few intake goes on
// with one message at a time, and the first success ends that. While a look at the bucket
// itself fails, intake stops.
type breaker struct {
	mu     sync.Mutex
	stages map[store.Stage]*streak
	images map[int64]suspicion
	down   error     // what the last look at the bucket said; nil: it answers
	next   time.Time // when it is looked at again
	pause  time.Duration
	trial  time.Time // of the last message taken while failures are alike
}

// streak are the failures at a stage since its last success.
type streak struct {
	successes int
	failures  int
	images    map[int64]bool
	cause     error
}

// suspicion is what an image's failures that may be an outage came to.
type suspicion struct {
	failures  int
	successes int // of its stage, as of the last one
}

func (b *breaker) of(st store.Stage) *streak {
	if b.stages == nil {
		b.stages = map[store.Stage]*streak{}
	}
	if b.images == nil {
		b.images = map[int64]suspicion{}
	}
	s := b.stages[st]
	if s == nil {
		s = &streak{images: map[int64]bool{}}
		b.stages[st] = s
	}
	return s
}

// succeeded notes that a stage did its work for an image, and reports whether that ends a
// streak.
func (b *breaker) succeeded(st store.Stage, image int64) (ended bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.of(st)
	ended = s.failures >= alike
	*s = streak{successes: s.successes + 1, images: map[int64]bool{}}
	delete(b.images, image)
	return ended
}

// failed notes a failure that may be an outage and reports whether it counts against the
// image all the same: others succeeded at the stage since its last one. n is how often it
// failed so, images how many did since the last success.
func (b *breaker) failed(st store.Stage, image int64, cause error) (counts bool, n, images int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.of(st)
	last, again := b.images[image]
	counts = again && s.successes > last.successes
	b.images[image] = suspicion{failures: last.failures + 1, successes: s.successes}
	s.failures, s.cause = s.failures+1, cause
	s.images[image] = true
	return counts, last.failures + 1, len(s.images)
}

// again counts a failure that is no image's fault and tells nothing of others, and
// returns how many there were.
func (b *breaker) again(image int64) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.images == nil {
		b.images = map[int64]suspicion{}
	}
	s := b.images[image]
	s.failures++
	b.images[image] = s
	return s.failures
}

// forget drops an image that has ended. Failures of images that have all ended tell
// nothing any more.
func (b *breaker) forget(image int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.images, image)
	for _, s := range b.stages {
		delete(s.images, image)
		if len(s.images) == 0 {
			s.failures, s.cause = 0, nil
		}
	}
}

// why says what fails for every image that is tried, nil if nothing does.
func (b *breaker) why() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, s := range b.stages {
		if s.failures >= alike {
			return fmt.Errorf("%w: %s failed %d times, for %d images, and for none it succeeded since: %w; one message at a time is tried until one succeeds: %s",
				errOutage, name, s.failures, len(s.images), s.cause, remedy(s.cause))
		}
	}
	return nil
}

// trialIn is how long until the next message is tried while failures are alike, and
// whether they are. One image alone that fails holds up nobody.
func (b *breaker) trialIn() (time.Duration, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	most := 0
	for _, s := range b.stages {
		if s.failures >= alike {
			most = max(most, len(s.images))
		}
	}
	if most < 2 {
		return 0, false
	}
	pause := min(time.Second<<min(most-2, 4), longestTrial)
	return max(0, pause-time.Since(b.trial)), true
}

// tried notes that a message is tried.
func (b *breaker) tried() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trial = time.Now()
}

// outage is why the bucket itself does not answer, nil if it did when it was last looked
// at.
func (b *breaker) outage() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down == nil {
		return nil
	}
	return fmt.Errorf("%w: the bucket does not answer: %w; it is looked at again by itself: %s",
		errOutage, b.down, remedy(b.down))
}

// due reports whether it is time to look at the bucket again while it does not answer.
func (b *breaker) due() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.down != nil && !time.Now().Before(b.next)
}

// looked notes what a look at the bucket said, and reports whether that is news.
func (b *breaker) looked(err error) (news bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	news = (b.down == nil) != (err == nil)
	b.down = err
	b.pause = min(max(2*b.pause, time.Second), longestTrial)
	if err == nil {
		b.pause = 0
	}
	b.next = time.Now().Add(b.pause)
	return news
}

// lookAtBucket asks the bucket whether it answers. What says nothing of the bucket as a
// whole counts as an answer.
func (p *Pipeline) lookAtBucket(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	err := p.probe(ctx)
	if err != nil && errors.Is(ctx.Err(), context.Canceled) { // a shutdown, and no answer
		return nil
	}
	anonymous := errors.Is(err, queue.ErrNoCredentials)
	// or it may never be listed
	if !anonymous && (download.Scope(err) != download.AllObjects || errors.Is(err, download.ErrDenied)) {
		err = nil
	}
	if p.breaker.looked(err) {
		if err != nil {
			p.Log.Error().Err(p.breaker.outage()).Msg("S3 does not answer for the bucket")
		} else {
			p.Log.Info().Msg("S3 answers for the bucket again")
			p.hasten()
		}
	}
	return err
}

// hasten makes the images that wait for the end of an outage due now.
func (p *Pipeline) hasten() {
	now := time.Now()
	p.mu.Lock()
	for id, at := range p.parked {
		if p.breaker.suspects(id) && at.After(now) {
			p.parked[id] = now
		}
	}
	p.mu.Unlock()
	p.nudge()
}

func (b *breaker) suspects(image int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, is := b.images[image]
	return is
}

package health

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"imagemanager.internal/internal/awserr"
	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/store"
)

const (
	// StreakLength is how many failures in a row at a stage are an outage, and no image's
	// fault.
	StreakLength = 3
	// longestTrial is the longest pause between two trials during an outage.
	longestTrial = 15 * time.Second
	// LongestWait is the longest an image waits for its next attempt during an outage.
	LongestWait = time.Minute
	// probeTimeout bounds one look at the bucket.
	probeTimeout = 10 * time.Second
)

// Breaker tells outages (of S3, credentials, network, a tool, a right) from an image's
// own faults. It weighs each possible outage by what else happened at the
// stage. While nothing succeeds there, the failure counts against no image. After a few
// of them intake goes on with one message at a time. The first success ends that. While a
// look at the bucket itself fails, intake stops.
type Breaker struct {
	mu     sync.Mutex
	stages map[store.Stage]*streak
	images map[int64]suspicion
	down   error         // what the last look at the bucket said; nil: it answers
	next   time.Time     // when it is looked at again
	pause  time.Duration // between two looks
	remedy func(error) string
	trial  time.Time // when the last message was taken during a streak
}

// streak is the failures at a stage since its last success.
type streak struct {
	successes int
	failures  int
	images    map[int64]bool
	cause     error
}

// suspicion counts an image's possible outages.
type suspicion struct {
	failures  int
	successes int // of its stage, as of the last one
}

func (b *Breaker) streakAt(st store.Stage) *streak {
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

// Succeeded notes a stage's success with an image, and reports whether it ends a streak.
func (b *Breaker) Succeeded(st store.Stage, image int64) (ended bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.streakAt(st)
	ended = s.failures >= StreakLength
	*s = streak{successes: s.successes + 1, images: map[int64]bool{}}
	delete(b.images, image)
	return ended
}

// Failed notes a possible outage, and reports whether the failure counts against the
// image all the same, because others succeeded at the stage since its last one. n is the
// number of the image's failures, images the number of failed images since the last
// success.
func (b *Breaker) Failed(st store.Stage, image int64, cause error) (counts bool, n, images int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.streakAt(st)
	last, again := b.images[image]
	counts = again && s.successes > last.successes
	b.images[image] = suspicion{failures: last.failures + 1, successes: s.successes}
	s.failures, s.cause = s.failures+1, cause
	s.images[image] = true
	return counts, last.failures + 1, len(s.images)
}

// FailedAlone counts a failure that says nothing of the image, nor of others.
// It returns how many there were.
func (b *Breaker) FailedAlone(image int64) int {
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

// Forget drops an image at its end. A streak tells nothing any more once all its
// images have ended.
func (b *Breaker) Forget(image int64) {
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

// outage returns what fails for every image; nil if nothing does.
func (b *Breaker) outage() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, s := range b.stages {
		if s.failures >= StreakLength {
			return fmt.Errorf("%w: %s failed %d times, for %d images, and succeeded for none since: %w; "+
				"one message at a time is tried until one succeeds: %s",
				ErrOutage, name, s.failures, len(s.images), s.cause, b.remedy(s.cause))
		}
	}
	return nil
}

// nextTrial returns how long to wait until the next message is tried during a streak, and
// whether there is one. A single failing image holds up nobody.
func (b *Breaker) nextTrial() (pause time.Duration, streak bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	most := 0
	for _, s := range b.stages {
		if s.failures >= StreakLength {
			most = max(most, len(s.images))
		}
	}
	if most < 2 {
		return 0, false
	}
	pause = min(time.Second<<min(most-2, 4), longestTrial)
	return max(0, pause-time.Since(b.trial)), true
}

// noteTrial notes the trial of a message.
func (b *Breaker) noteTrial() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trial = time.Now()
}

// BucketDown returns why the bucket did not answer when it was last looked at; nil if it
// did.
func (b *Breaker) BucketDown() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down == nil {
		return nil
	}
	return fmt.Errorf("%w: the bucket does not answer: %w; it is looked at again by itself: %s",
		ErrOutage, b.down, b.remedy(b.down))
}

// lookDue reports whether it is time to look again at a silent bucket.
func (b *Breaker) lookDue() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.down != nil && !time.Now().Before(b.next)
}

// noteLook notes the result of a look at the bucket, and reports whether it is news.
func (b *Breaker) noteLook(err error) (news bool) {
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

// Suspects reports whether the image failed for what may be an outage.
func (b *Breaker) Suspects(image int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, found := b.images[image]
	return found
}

// LookAtBucket asks the bucket whether it answers. A refusal of something
// other than the whole bucket is also an answer.
func (m *Monitor) LookAtBucket(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	err := m.deps.Probe(ctx)
	if err != nil && errors.Is(ctx.Err(), context.Canceled) { // a shutdown, not an answer
		return nil
	}
	anonymous := errors.Is(err, awserr.ErrNoCredentials)
	mayNotList := errors.Is(err, download.ErrDenied)
	if !anonymous && (download.Scope(err) != download.AllObjects || mayNotList) {
		err = nil
	}
	if !m.Breaker.noteLook(err) {
		return err
	}
	if err != nil {
		m.log.Error().Err(m.Breaker.BucketDown()).Msg("S3 does not answer for the bucket")
		return err
	}
	m.log.Info().Msg("S3 answers for the bucket again")
	m.deps.OnRecovery()
	return nil
}

package pipeline

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
	// streakLength is how many failures in a row at a stage are an outage, and no image's
	// fault.
	streakLength = 3
	// longestTrial is the longest pause between two trials during an outage.
	longestTrial = 15 * time.Second
	// longestOutage is the longest an image waits for its next attempt during an outage.
	longestOutage = time.Minute
	// probeTimeout bounds one look at the bucket.
	probeTimeout = 10 * time.Second
)

// breaker tells outages (of S3, credentials, network, a tool, a right) from an image's
// own faults. It weighs each possible outage by what else happened at the
// stage. While nothing succeeds there, the failure counts against no image. After a few
// of them intake goes on with one message at a time. The first success ends that. While a
// look at the bucket itself fails, intake stops.
type breaker struct {
	mu     sync.Mutex
	stages map[store.Stage]*streak
	images map[int64]suspicion
	down   error         // what the last look at the bucket said; nil: it answers
	next   time.Time     // when it is looked at again
	pause  time.Duration // between two looks
	trial  time.Time     // when the last message was taken during a streak
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

func (b *breaker) streakAt(st store.Stage) *streak {
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

// succeeded notes a stage's success with an image, and reports whether it ends a streak.
func (b *breaker) succeeded(st store.Stage, image int64) (ended bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.streakAt(st)
	ended = s.failures >= streakLength
	*s = streak{successes: s.successes + 1, images: map[int64]bool{}}
	delete(b.images, image)
	return ended
}

// failed notes a possible outage, and reports whether the failure counts against the
// image all the same, because others succeeded at the stage since its last one. n is the
// number of the image's failures, images the number of failed images since the last
// success.
func (b *breaker) failed(st store.Stage, image int64, cause error) (counts bool, n, images int) {
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

// failedAlone counts a failure that says nothing of the image, nor of others.
// It returns how many there were.
func (b *breaker) failedAlone(image int64) int {
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

// forget drops an image at its end. A streak tells nothing any more once all its
// images have ended.
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

// outage returns what fails for every image; nil if nothing does.
func (b *breaker) outage() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, s := range b.stages {
		if s.failures >= streakLength {
			return fmt.Errorf("%w: %s failed %d times, for %d images, and succeeded for none since: %w; "+
				"one message at a time is tried until one succeeds: %s",
				errOutage, name, s.failures, len(s.images), s.cause, remedy(s.cause))
		}
	}
	return nil
}

// nextTrial returns how long to wait until the next message is tried during a streak, and
// whether there is one. A single failing image holds up nobody.
func (b *breaker) nextTrial() (pause time.Duration, streak bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	most := 0
	for _, s := range b.stages {
		if s.failures >= streakLength {
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
func (b *breaker) noteTrial() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trial = time.Now()
}

// bucketDown returns why the bucket did not answer when it was last looked at; nil if it
// did.
func (b *breaker) bucketDown() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down == nil {
		return nil
	}
	return fmt.Errorf("%w: the bucket does not answer: %w; it is looked at again by itself: %s",
		errOutage, b.down, remedy(b.down))
}

// lookDue reports whether it is time to look again at a silent bucket.
func (b *breaker) lookDue() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.down != nil && !time.Now().Before(b.next)
}

// noteLook notes the result of a look at the bucket, and reports whether it is news.
func (b *breaker) noteLook(err error) (news bool) {
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

// suspects reports whether the image failed for what may be an outage.
func (b *breaker) suspects(image int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, found := b.images[image]
	return found
}

// lookAtBucket asks the bucket whether it answers. A refusal of something
// else than the whole bucket is an answer, too.
func (h *health) lookAtBucket(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	err := h.probe(ctx)
	if err != nil && errors.Is(ctx.Err(), context.Canceled) { // a shutdown, not an answer
		return nil
	}
	anonymous := errors.Is(err, awserr.ErrNoCredentials)
	mayNotList := errors.Is(err, download.ErrDenied)
	if !anonymous && (download.Scope(err) != download.AllObjects || mayNotList) {
		err = nil
	}
	if !h.breaker.noteLook(err) {
		return err
	}
	if err != nil {
		h.log.Error().Err(h.breaker.bucketDown()).Msg("S3 does not answer for the bucket")
		return err
	}
	h.log.Info().Msg("S3 answers for the bucket again")
	h.onRecovery()
	return nil
}

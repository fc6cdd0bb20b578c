package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"imagemanager.internal/internal/awserr"
	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/queue"
	"imagemanager.internal/internal/store"
)

// errUnsettled is returned when messages cannot be kept from other consumers while their
// images are made, or cannot be deleted afterwards.
var errUnsettled = errors.New("messages cannot be held or settled")

// health knows what an operator asks first: is work being taken, and if not, why.
type health struct {
	cfg     Config
	store   *store.Store
	queue   *queue.Client
	pool    *devmapper.Pool
	log     zerolog.Logger
	metrics *Metrics

	capacity   func() error                // nil if the machine is fit for new work; the error says what to do
	probe      func(context.Context) error // asks S3 for the bucket as such
	onRecovery func()                      // called when an outage has ended

	breaker breaker
	limit   logLimit

	mu      sync.Mutex
	paused  error // why intake takes nothing, nil if it does
	journal error // of the last write to the database, if it cannot be written
	polling error // of the last poll
	proof   error // why the pool's parts do not belong together, as of the last reconcile
	alone   int64 // the image on trial without others; 0 for none
	foreign foreign
	ended   map[verdict]int // jobs since the start
}

func newHealth(cfg Config, d Deps) *health {
	h := &health{
		cfg: cfg, store: d.Store, queue: d.Queue, pool: d.Pool, log: d.Log, metrics: d.Metrics,
		probe: d.Bucket.Probe, ended: map[verdict]int{},
	}
	h.capacity = h.checkCapacity
	return h
}

// count notes how a job ended.
func (h *health) count(v verdict) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended[v]++
}

// summary writes one line about all jobs.
func (h *health) summary(log *zerolog.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	total := 0
	for v, n := range h.ended {
		log, total = log.Int(string(v), n), total+n
	}
	log.Int("jobs", total).Msg("stopped")
}

// ready returns why work is not taken, and what to do; nil if it is.
func (h *health) ready() error {
	outage := h.breaker.outage()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, err := range []error{h.paused, h.polling, outage, h.foreign.why()} {
		if err != nil {
			return err
		}
	}
	return nil
}

// watch looks once a second whether the machine is fit for work.
func (h *health) watch(ctx context.Context) {
	for ctx.Err() == nil {
		if h.journalError() != nil {
			if err := h.store.Probe(ctx); err == nil || !store.Unwritable(err) && !store.Busy(err) {
				h.journalFailed(nil)
			}
		}
		if h.breaker.lookDue() {
			_ = h.lookAtBucket(ctx) // the breaker keeps what it said
		}
		h.acceptingWork()
		wait(ctx, time.Second)
	}
}

// acceptingWork reports whether new work may be taken: database, disk and pool must be
// writable and have their reserves, and the bucket must answer. While it may not,
// messages stay in the queue.
func (h *health) acceptingWork() bool {
	why := h.capacity()
	if why == nil {
		why = h.breaker.bucketDown()
	}
	if id := h.aloneImage(); why == nil && id != 0 {
		why = fmt.Errorf("image %d, at which processes died, is tried alone", id)
	}
	h.mu.Lock()
	changed := (h.paused == nil) != (why == nil)
	h.paused = why
	h.mu.Unlock()
	switch {
	case !changed:
	case why != nil:
		h.log.Error().Err(why).Msg("intake paused")
	default:
		h.log.Info().Msg("intake resumed")
	}
	return why == nil
}

// setAlone notes the image on trial without others; 0 for none.
func (h *health) setAlone(image int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.alone = image
}

func (h *health) aloneImage() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.alone
}

// journalFailed notes why the database cannot be written; nil if it can again.
func (h *health) journalFailed(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.journal = err
}

func (h *health) journalError() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.journal
}

// poolProved notes whether the pool's parts still prove to belong together.
func (h *health) poolProved(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.proof = nil
	if errors.Is(err, devmapper.ErrForeign) {
		h.proof = err
	}
}

func (h *health) poolProof() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.proof
}

// polled notes how a poll of the queue ended. A failure is logged once every ten seconds
// for each class.
func (h *health) polled(err error) {
	class := awserr.Class("")
	h.mu.Lock()
	h.polling = nil
	if err != nil {
		class = awserr.Classify(err)
		h.polling = fmt.Errorf("receiving messages fails: %s", class)
	}
	h.mu.Unlock()
	if err == nil {
		return
	}
	h.metrics.receiveError(string(class))
	if h.limit.allows("receive "+string(class), time.Now()) {
		h.log.Error().Err(err).Str("class", string(class)).Msg("cannot receive messages; trying again")
	}
}

// apiCalls are the operators' names for what the queue client does.
var apiCalls = map[string]string{
	"extend": "ChangeMessageVisibility", "release": "ChangeMessageVisibility",
	"delete": "DeleteMessage", "dead-letter": "SendMessage",
}

// queueCallFailed logs a failed call. The queue client is going to try it again.
func (h *health) queueCallFailed(operation string, err error) {
	class := string(awserr.Classify(err))
	if h.limit.allows(operation+" "+class, time.Now()) {
		h.log.Warn().Err(err).Str("call", apiCalls[operation]).Str("class", class).
			Msg("a call to the queue failed; it is tried again")
	}
}

// messageCapped logs a message held for nearly as long as SQS allows. It cannot be
// extended any further. If its images take longer, their attempts are rolled back.
func (h *health) messageCapped(id string, end time.Time) {
	h.log.Warn().Str("message_id", id).Time("until", end).
		Msg("message held for nearly 12 hours, the limit of SQS: it is lost when they are over, and received again")
}

// checkSettling returns why no message can be held or settled, and what to do; nil if
// they can.
func (h *health) checkSettling() error {
	call, err := h.queue.Trouble()
	if err == nil {
		return nil
	}
	remedy := "it is tried again every few seconds"
	switch awserr.Classify(err) {
	case awserr.Denied:
		remedy = "allow sqs:" + call + " on the queue"
	case awserr.NotFound:
		remedy = "see to SQS_QUEUE_URL and AWS_REGION"
	}
	return fmt.Errorf("%w: %s fails: %s: %s; intake goes on by itself once it succeeds",
		errUnsettled, call, awserr.Classify(err), remedy)
}

// logLimit lets one line of a kind pass every ten seconds.
type logLimit struct {
	mu   sync.Mutex
	last map[string]time.Time
}

func (l *logLimit) allows(kind string, at time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if last, ok := l.last[kind]; ok && at.Sub(last) < 10*time.Second {
		return false
	}
	if l.last == nil {
		l.last = map[string]time.Time{}
	}
	l.last[kind] = at
	return true
}

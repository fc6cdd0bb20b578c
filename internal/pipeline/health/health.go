// Package health knows whether the pipeline may take work, and says why not.
//
// Work is taken while the database, the disks, the pool, the queue and the bucket are fit
// for it. capacity.go looks at this machine, and breaker.go tells outages from an image's
// own faults. foreign.go stops a daemon with the wrong bucket or prefix from emptying its
// queue.
package health

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"imagemanager.internal/internal/awserr"
	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
)

// errUnsettled is returned when messages cannot be kept from other consumers while their
// images are made, or cannot be deleted afterwards.
var errUnsettled = errors.New("messages cannot be held or settled")

// ErrOutage is returned for what would fail for any image.
var ErrOutage = errors.New("not the image's fault")

// errDatabase is returned while the journal takes no events.
var errDatabase = errors.New("database cannot be written")

// Config says what must be free for new work.
type Config struct {
	Bucket, Prefix string // of our images
	StateDir       string // for messages

	Disks                        []string // directories on the file systems to watch
	MinFreeDisk                  int64    // bytes on each of them
	MinFreeData, MinFreeMetadata float64  // fractions of the pool
}

// Deps are what a Monitor looks at, and whom it tells.
type Deps struct {
	Store      *store.Store
	Settling   func() (call string, err error)  // of queue.Client: what keeps messages from being settled
	PoolStatus func() (devmapper.Status, error) // asks the kernel
	Probe      func(context.Context) error      // asks S3 for the bucket as such

	Remedy       func(error) string                    // what an operator can do about an outage
	OnRecovery   func()                                // called when an outage has ended
	OnPoolStatus func(devmapper.Status)                // called with every status of the pool
	OnDisk       func(dir string, free, reserve int64) // called with every look at a disk; bytes
	Log          zerolog.Logger
}

// Monitor knows what an operator asks first: is work being taken, and if not, why.
type Monitor struct {
	cfg  Config
	deps Deps
	log  zerolog.Logger

	Capacity func() Reasons // what the machine lacks for new work
	// How many of the snapshots that the start found inactive were tried, of how many;
	// zeros when all were. Work is taken meanwhile. It is set before anybody asks.
	Activating func() (done, total int)

	Breaker Breaker
	Pulse   *Pulse
	Limit   LogLimit

	mu      sync.Mutex
	lacks   Reasons           // what the machine lacked at the last look
	paused  bool              // intake takes nothing
	pool    *devmapper.Status // at the last look; nil before the first
	journal error             // of the last write to the database, if it cannot be written
	polling error             // of the last poll
	proof   error             // why the pool's parts do not belong together, as of the last reconcile
	alone   int64             // the image on trial without others; 0 for none
	foreign foreign
}

// New returns a Monitor.
func New(cfg Config, d Deps) *Monitor {
	m := &Monitor{cfg: cfg, deps: d, log: d.Log, Breaker: Breaker{remedy: d.Remedy}, Pulse: newPulse()}
	m.Capacity = m.checkCapacity
	return m
}

// Reasons returns why work is not taken, as of the last look at the machine. It is cheap.
// While the daemon is stuck that is the only reason: the others may be behind a lock that
// nobody frees.
func (m *Monitor) Reasons() Reasons {
	if err := m.Pulse.Stuck(); err != nil {
		return Reasons{Stuck: err}
	}
	return m.reasons()
}

// Pool returns the status of the pool at the last look; nil before the first.
func (m *Monitor) Pool() *devmapper.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pool
}

func (m *Monitor) notePool(s devmapper.Status) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pool = &s
}

// Stuck returns why the daemon must be started again; nil if it lives. It takes no lock.
func (m *Monitor) Stuck() error { return m.Pulse.Stuck() }

// Beat proves once a second, until ctx ends, that the locks are free which every job
// needs: those of the Monitor, and those that touch takes.
func (m *Monitor) Beat(ctx context.Context, touch func()) {
	m.Pulse.beat(ctx, func() {
		m.reasons()
		touch()
	})
}

func (m *Monitor) reasons() Reasons {
	why := m.pausing()
	why[Outage] = m.Breaker.outage()
	m.mu.Lock()
	defer m.mu.Unlock()
	why[Receive], why[ForeignEvents] = m.polling, m.foreign.why()
	return why
}

// pausing returns why intake takes nothing, as of the last look at the machine.
func (m *Monitor) pausing() Reasons {
	why := Reasons{Bucket: m.Breaker.BucketDown()}
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.Copy(why, m.lacks)
	if m.alone != 0 {
		why[Alone] = fmt.Errorf("image %d, at which processes died, is tried alone", m.alone)
	}
	return why
}

// Watch looks once a second whether the machine is fit for work.
func (m *Monitor) Watch(ctx context.Context) {
	for ctx.Err() == nil {
		if m.JournalError() != nil {
			if err := m.deps.Store.Probe(ctx); err == nil || !store.Unwritable(err) && !store.Busy(err) {
				m.JournalFailed(nil)
			}
		}
		if m.Breaker.lookDue() {
			_ = m.LookAtBucket(ctx) // the breaker keeps what it said
		}
		m.AcceptingWork()
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

// AcceptingWork reports whether new work may be taken: database, disk and pool must be
// writable and have their reserves, and the bucket must answer. While it may not,
// messages stay in the queue.
func (m *Monitor) AcceptingWork() bool {
	lacks := m.Capacity()
	m.mu.Lock()
	m.lacks = lacks
	m.mu.Unlock()
	why := m.pausing().Err()
	m.mu.Lock()
	changed := m.paused != (why != nil)
	m.paused = why != nil
	m.mu.Unlock()
	switch {
	case !changed:
	case why != nil:
		m.log.Error().Err(why).Msg("intake paused")
	default:
		m.log.Info().Msg("intake resumed")
	}
	return why == nil
}

// SetAlone notes the image on trial without others; 0 for none.
func (m *Monitor) SetAlone(image int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.alone = image
}

// Alone returns the image on trial without others; 0 for none.
func (m *Monitor) Alone() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.alone
}

// JournalFailed notes why the database cannot be written; nil if it can again.
func (m *Monitor) JournalFailed(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.journal = err
}

// JournalError returns why the database cannot be written; nil if it can.
func (m *Monitor) JournalError() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.journal
}

// PoolProved notes whether the pool's parts still prove to belong together.
func (m *Monitor) PoolProved(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.proof = nil
	if errors.Is(err, devmapper.ErrForeign) {
		m.proof = err
	}
}

func (m *Monitor) poolProof() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.proof
}

// Polled notes how a poll of the queue ended. A failure is logged once every ten seconds
// for each class.
func (m *Monitor) Polled(err error) {
	var why error
	class := awserr.Classify(err)
	remedy := queueRemedy("ReceiveMessage", class)
	if err != nil {
		why = fmt.Errorf("receiving messages fails: %s: %s; it is tried again by itself", class, remedy)
	}
	m.mu.Lock()
	m.polling = why
	m.mu.Unlock()
	if err != nil && m.Limit.Allows("receive "+string(class), time.Now()) {
		m.log.Error().Err(err).Str("class", string(class)).Str("remedy", remedy).
			Msg("cannot receive messages; trying again")
	}
}

// queueRemedy says what an operator can do about a call that fails for every message.
func queueRemedy(call string, class awserr.Class) string {
	switch class {
	case awserr.Credentials:
		return "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or see to the machine's role, and to its clock"
	case awserr.Denied:
		return "allow sqs:" + call + " on the queue, and the use of its key"
	case awserr.NotFound:
		return "correct SQS_QUEUE_URL or AWS_REGION"
	case awserr.Network, awserr.Timeout:
		return "see to DNS, routes, proxies and AWS_ENDPOINT_URL"
	case awserr.Other:
		return "see what answers at SQS_QUEUE_URL and AWS_ENDPOINT_URL"
	}
	return "wait, AWS is busy"
}

// apiCalls are the operators' names for what the queue client does.
var apiCalls = map[string]string{
	"extend": "ChangeMessageVisibility", "release": "ChangeMessageVisibility",
	"delete": "DeleteMessage", "dead-letter": "SendMessage",
}

// QueueCallFailed logs a failed call. The queue client is going to try it again.
func (m *Monitor) QueueCallFailed(operation string, err error) {
	class := string(awserr.Classify(err))
	if m.Limit.Allows(operation+" "+class, time.Now()) {
		m.log.Warn().Err(err).Str("call", apiCalls[operation]).Str("class", class).
			Msg("a call to the queue failed; it is tried again")
	}
}

// MessageCapped logs a message held for nearly as long as SQS allows. It cannot be
// extended any further. If its images take longer, their attempts are rolled back.
func (m *Monitor) MessageCapped(id string, end time.Time) {
	m.log.Warn().Str("message_id", id).Time("until", end).
		Msg("message held for nearly 12 hours, the limit of SQS: it is lost when they are over, and received again")
}

// checkSettling returns why no message can be held or settled, and what to do; nil if
// they can.
func (m *Monitor) checkSettling() error {
	call, err := m.deps.Settling()
	if err == nil {
		return nil
	}
	class := awserr.Classify(err)
	return fmt.Errorf("%w: %s fails: %s: %s; intake goes on by itself once it succeeds",
		errUnsettled, call, class, queueRemedy(call, class))
}

// LogLimit lets one line of a kind pass every ten seconds.
type LogLimit struct {
	mu   sync.Mutex
	last map[string]time.Time
}

// Allows reports whether a line of the kind may pass.
func (l *LogLimit) Allows(kind string, at time.Time) bool {
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

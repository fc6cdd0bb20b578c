package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/trace"

	"imagemanager.internal/internal/awserr"
	"imagemanager.internal/internal/failpoint"
	"imagemanager.internal/internal/pipeline/health"
	"imagemanager.internal/internal/queue"
	"imagemanager.internal/internal/store"
)

// errLeaseLost is the cause of a job's context when SQS gives its message to another
// consumer.
var errLeaseLost = errors.New("the message is no longer ours")

// outcome is how a job ended, for its messages.
type outcome struct {
	verdict     verdict
	delay       time.Duration // retry: before the message is visible again
	noAutoRetry bool          // retry: wait for the message to come back; do not schedule a retry
	reason      string        // dead: for whoever finds the message in the dead-letter queue
	attempts    int           // dead
}

var (
	done     = outcome{verdict: accepted}
	returned = outcome{verdict: retry} // visible to the other hosts at once

	// A step's alone: the job has not ended.
	goesOn = outcome{verdict: "goes on"}
	stuck  = outcome{verdict: "stuck"}
)

// rank orders outcomes by what they ask for the message: delete it, dead-letter it, keep
// it. The highest of its records decides.
func (o outcome) rank() int {
	switch o.verdict {
	case retry:
		return 2
	case dead:
		return 1
	}
	return 0
}

// delivery is one message and the jobs it waits for, one a record. It is settled once,
// when the last has ended.
type delivery struct {
	msg     *queue.Message
	settled chan struct{}     // closed when settled
	lost    bool              // guarded by jobs.mu
	polled  trace.SpanContext // the poll that brought it

	mu    sync.Mutex
	open  int          // running jobs, plus one while intake still adds
	worst outcome      // of the highest rank so far
	jobs  []trace.Link // that it waited for, or waits for
}

// add counts one more job.
func (d *delivery) add() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open++
}

// end notes one outcome and reports whether it was the last.
func (d *delivery) end(o outcome) (last bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open--
	if o.rank() > d.worst.rank() {
		d.worst = o
	}
	return d.open == 0
}

// maxSettling is how many messages may be in the middle of being settled. A call to SQS
// settles ten, so that is enough for several in flight, and not enough to matter against
// the queue's limit of messages in flight.
const maxSettling = 64

// messages are the held messages, from their receipt until they are settled.
type messages struct {
	queue   *queue.Client
	store   *store.Store
	health  *health.Monitor
	jobs    *jobs
	log     zerolog.Logger
	metrics *Metrics
	backoff time.Duration
	tracer  trace.Tracer
	polled  trace.SpanContext // of the newest poll that brought messages; intake's own

	permits  chan struct{}  // one for each message with work to do, or asked for by a poll; buffered
	held     atomic.Int64   // messages with work to do
	settling chan struct{}  // one for each message being settled, likewise
	watchers sync.WaitGroup // one goroutine for each message held
}

func newMessages(cfg Config, d Deps, h *health.Monitor, js *jobs) *messages {
	permits := cfg.Downloads + cfg.Unpacks + cfg.Activations
	d.Metrics.queue.permits.Set(float64(permits))
	return &messages{
		queue: d.Queue, store: d.Store, health: h, jobs: js, log: d.Log, metrics: d.Metrics, backoff: cfg.Backoff,
		tracer: d.tracer(), permits: make(chan struct{}, permits), settling: make(chan struct{}, maxSettling),
	}
}

// keepInvisible extends the leases of the held messages until work ends.
func (ms *messages) keepInvisible(work context.Context) {
	if err := ms.queue.Run(work); err != nil && work.Err() == nil {
		ms.log.Error().Err(err).Msg("heartbeat ended")
	}
}

// acquire waits for one permit and takes up to most. It returns 0 when ctx has ended.
func (ms *messages) acquire(ctx context.Context, most int) (n int) {
	select {
	case ms.permits <- struct{}{}:
	case <-ctx.Done():
		return 0
	}
	for n = 1; n < most; n++ {
		select {
		case ms.permits <- struct{}{}:
		default:
			return n
		}
	}
	return most
}

func (ms *messages) releasePermits(n int) {
	for range n {
		<-ms.permits
	}
}

// hold counts messages more, or less.
func (ms *messages) hold(n int) {
	ms.held.Add(int64(n))
	ms.metrics.queue.held.Add(float64(n))
}

// receive polls once if work may be taken. Otherwise it waits a moment and returns none.
func (ms *messages) receive(ctx context.Context, n int) ([]*queue.Message, error) {
	if !ms.health.AcceptingWork() {
		wait(ctx, time.Second)
		return nil, nil
	}
	ms.health.Pulse.Promise(health.Polling, ms.queue.PollTimeout())
	defer ms.health.Pulse.Rest(health.Polling)
	began := time.Now()
	msgs, err := ms.queue.Receive(ctx, n)
	ms.hold(len(msgs))
	ms.traceReceived(ctx, began, msgs)
	return msgs, err
}

// watch starts to watch a message. The delivery is held open until intake has counted
// every record.
func (ms *messages) watch(m *queue.Message) *delivery {
	d := &delivery{msg: m, open: 1, settled: make(chan struct{}), polled: ms.polled}
	ms.watchers.Go(func() {
		select {
		case <-m.Lost():
			ms.metrics.queue.lost.Inc()
			ms.log.Warn().Str("message_id", m.ID).
				Msg("message lost: its visibility time-out passed, or its receipt handle is no longer valid")
			ms.jobs.loseMessage(d)
		case <-d.settled:
		}
	})
	return d
}

// malformed logs and counts what cannot be read. Its message is dead-lettered.
func (ms *messages) malformed(m *queue.Message, err error, text string) outcome {
	ms.log.Error().Err(err).Str("message_id", m.ID).Int("receive_count", m.ReceiveCount).Msg(text)
	ms.metrics.queue.ignored.WithLabelValues(reasonMalformed).Inc()
	return outcome{verdict: dead, reason: err.Error(), attempts: m.ReceiveCount}
}

// ignore counts what a message names and we do not take, and begins its log line.
func (ms *messages) ignore(m *queue.Message, reason string) *zerolog.Event {
	ms.metrics.queue.ignored.WithLabelValues(reason).Inc()
	return ms.log.Info().Str("message_id", m.ID).Str("reason", reason)
}

// acknowledge notes the outcome of one record. The last one settles the message. The
// caller does not wait: the queue client joins what comes at about the same time into one
// call. The message's permit is free before that call is answered, or the time of a call
// would bound how many messages are answered from the journal. But where SQS does not
// answer, maxSettling messages wait for it; the next ones keep their permits, and nothing
// more is received.
func (ms *messages) acknowledge(ctx context.Context, d *delivery, o outcome) {
	if !d.end(o) {
		return
	}
	ms.watchers.Go(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout) // also while stopping
		defer cancel()
		select {
		case ms.settling <- struct{}{}:
			defer func() { <-ms.settling }()
		case <-ctx.Done(): // settle says so
		}
		ms.hold(-1)
		ms.releasePermits(1)
		ms.settle(ctx, d)
		close(d.settled)
	})
}

// settle deletes a message, dead-letters it, or returns it. A message is deleted only
// when every image it names is terminal, on disk. However it ends, its lease is not
// extended any more: nothing counts what is held.
func (ms *messages) settle(ctx context.Context, d *delivery) {
	ctx, end := ms.traceSettle(ctx, d)
	var err error
	result := "deleted"
	switch d.worst.verdict {
	case retry:
		result, err = "returned", ms.queue.Release(ctx, d.msg, d.worst.delay)
	case dead:
		result, err = ms.deadLetter(ctx, d)
	default:
		failpoint.Here("before", "delete", "message")
		err = ms.queue.Delete(ctx, d.msg)
		failpoint.Here("after", "delete", "message")
	}
	if err != nil {
		result = "unsettled"
		ms.log.Warn().Err(err).Str("message_id", d.msg.ID).
			Msg("message not settled; it comes back when its visibility time-out ends, and is handed off")
	}
	end(result, err)
	ms.metrics.queue.ended(d.inJob(ctx), result, time.Since(d.msg.ReceivedAt))
}

// deadLetter moves a hopeless message to the dead-letter queue, or to the quarantine
// table if no queue is configured or it takes no copy, and then deletes it. If it can be
// kept nowhere, it is returned for a while: its images are still dead when it comes
// again. The result is for the metric. After an error the message is neither deleted nor
// extended.
func (ms *messages) deadLetter(ctx context.Context, d *delivery) (result string, err error) {
	log := ms.log.With().Str("message_id", d.msg.ID).Str("reason", d.worst.reason).
		Int("attempts", d.worst.attempts).Logger()
	err = ms.queue.DeadLetter(ctx, d.msg, d.worst.reason, d.worst.attempts)
	switch {
	case err == nil:
		log.Error().Msg("message moved to the dead-letter queue")
		return "dead_lettered", nil
	case errors.Is(err, queue.ErrNotCopied):
		log.Warn().Err(err).Str("class", string(awserr.Classify(err))).
			Msg("message cannot be moved to SQS_DEAD_LETTER_URL: it is kept in quarantine instead")
	case !errors.Is(err, queue.ErrNoDeadLetter):
		return "", err
	}
	err = ms.store.Quarantine(ctx, store.QuarantinedMessage{
		MessageID: d.msg.ID, Body: d.msg.Body, Reason: d.worst.reason, Attempts: d.worst.attempts, SentAt: d.msg.SentAt,
	})
	if err != nil {
		if store.Unwritable(err) {
			ms.health.JournalFailed(err)
		}
		delay := backoff(ms.backoff, d.msg.ReceiveCount)
		log.Error().Err(err).Dur("again_in_ms", delay).
			Msg("message can be kept nowhere: it is returned to the queue, and dead-lettered when it comes again")
		return "returned", ms.queue.Release(ctx, d.msg, delay)
	}
	log.Error().Msg("message moved to quarantine: `consumer quarantine list`")
	return "dead_lettered", ms.queue.Delete(ctx, d.msg)
}

// probeDeadLetter refuses an unfit dead-letter queue. If it cannot be looked at, the
// error is only logged.
func (ms *messages) probeDeadLetter(ctx context.Context) error {
	err := ms.queue.ProbeDeadLetter(ctx)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, queue.ErrUnfit):
		return fmt.Errorf("SQS_DEAD_LETTER_URL: %w: make the queue, or name another; "+
			"without the setting such messages are kept in quarantine", err)
	}
	ms.log.Warn().Err(err).Str("class", string(awserr.Classify(err))).
		Msg("the dead-letter queue cannot be looked at: allow sqs:GetQueueAttributes on it; " +
			"what it does not take is kept in quarantine")
	return nil
}

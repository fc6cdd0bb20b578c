// Package queue is the SQS half of the consumer: it receives messages, keeps them
// invisible to other consumers while they are held, and deletes them, gives them back or
// dead-letters them. It reads S3's notifications in all their envelopes. It knows nothing
// about images.
//
// receive.go polls for messages (message.go). lease.go knows how long each message is
// still ours, heartbeat.go extends that time, and trouble.go knows whether extending
// works. acknowledge.go and deadletter.go end a message; batch.go combines their calls.
// notification.go and records.go read bodies, codes.go reads errors.
//
// Every call to AWS has a deadline, and the SDK's own retries are off: one place decides
// when to try again, and it knows how much time a message has left. The package neither
// logs nor counts; it reports to an Observer.
package queue

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

// Limits of SQS, from its developer guide, "Amazon SQS message quotas".
const (
	maxBatch      = 10
	maxWait       = 20 * time.Second
	maxVisibility = 12 * time.Hour // from the receive on, extensions included
)

var (
	// ErrLeaseLost is returned when a message no longer belongs to this consumer: another
	// one may be working on it. Every other reason for a lost message wraps it.
	ErrLeaseLost = errors.New("message is no longer held")
	// ErrFIFO is returned for a FIFO queue. S3 cannot notify one.
	ErrFIFO = errors.New("a FIFO queue cannot be notified by S3")
	// ErrRunning is returned by Run while another Run is running.
	ErrRunning = errors.New("heartbeat is already running")
	// ErrNoDeadLetter is returned when no dead-letter queue is configured.
	ErrNoDeadLetter = errors.New("no dead-letter queue is configured")
)

// API is the part of SQS used by a Client. *sqs.Client implements it.
type API interface {
	ReceiveMessage(context.Context, *sqs.ReceiveMessageInput, ...func(*sqs.Options)) (*sqs.ReceiveMessageOutput, error)
	ChangeMessageVisibilityBatch(context.Context, *sqs.ChangeMessageVisibilityBatchInput,
		...func(*sqs.Options)) (*sqs.ChangeMessageVisibilityBatchOutput, error)
	DeleteMessageBatch(context.Context, *sqs.DeleteMessageBatchInput,
		...func(*sqs.Options)) (*sqs.DeleteMessageBatchOutput, error)
	SendMessage(context.Context, *sqs.SendMessageInput, ...func(*sqs.Options)) (*sqs.SendMessageOutput, error)
	GetQueueAttributes(context.Context, *sqs.GetQueueAttributesInput,
		...func(*sqs.Options)) (*sqs.GetQueueAttributesOutput, error)
}

// Config configures a Client. Only URL is required; a zero field takes its default.
type Config struct {
	URL           string
	DeadLetterURL string // where DeadLetter sends copies; "" disables it

	// Wait is how long a poll waits for messages: 20 s by default and at most, in whole
	// seconds. It is cut to half of Visibility, because a lease counts from the request:
	// a message received at the end of a longer poll would have lost half its time.
	Wait time.Duration
	// Visibility is how long a message stays invisible without a heartbeat: 60 s by
	// default, 12 h at most, in whole seconds.
	Visibility time.Duration

	// Slack is how much longer than Wait a poll may take before it counts as dead: 10 s
	// by default.
	Slack time.Duration
	// Drain is how long a poll in flight may go on after its context has ended: by
	// default until its own deadline.
	Drain time.Duration
	// CallTimeout bounds every other call: 5 s by default, and never more than a quarter
	// of Visibility.
	CallTimeout time.Duration
	// Linger is how long the first of a batch of deletes or releases waits for others:
	// 5 ms by default.
	Linger time.Duration

	Observer Observer
}

// Observer is told what a Client does on its own, for metrics and logs. A function may be
// nil. It must not block, and must not call the Client.
type Observer struct {
	// Polled is called after every poll with the messages received, which may be none, or
	// with the error. A poll cut off by the end of its context is not reported.
	Polled func(msgs []*Message, err error)
	// Extended is called for every successful extension, with the time that was left of
	// the old lease.
	Extended func(id string, margin time.Duration)
	// Capped is called when no further extension of a message is possible, with the time
	// at which it will be lost: about 12 h after its receive.
	Capped func(id string, end time.Time)
	// Failed is called when entries of a batch failed and will be tried again. The
	// operation is "extend", "delete", "release" or "dead-letter".
	Failed func(operation string, entries int, err error)
}

// Client is one consumer of one queue. It is safe for concurrent use.
type Client struct {
	api      API
	cfg      Config
	leases   *leases
	deletes  *batcher
	releases *batcher
	changing trouble // with ChangeMessageVisibility
	removing trouble // with DeleteMessage
	running  atomic.Bool
}

// New makes a Client; it does not call the queue.
func New(api API, cfg Config) *Client {
	cfg = cfg.withDefaults()
	c := &Client{api: api, cfg: cfg, leases: newLeases(cfg.Visibility, cfg.CallTimeout)}
	c.deletes = &batcher{
		send: c.deleteEntries, newestHandle: c.leases.newestHandle, followHandle: true,
		rule: deleteRule, linger: cfg.Linger,
		failed: func(n int, err error) { c.observeFailed("delete", n, err) },
	}
	c.releases = &batcher{
		send: c.changeVisibility, newestHandle: c.leases.newestHandle,
		rule: releaseRule, linger: cfg.Linger,
		failed: func(n int, err error) { c.observeFailed("release", n, err) },
	}
	return c
}

func (c Config) withDefaults() Config {
	c.Visibility = max(min(orDefault(c.Visibility, time.Minute), maxVisibility).Truncate(time.Second), time.Second)
	// The SDK does not send WaitTimeSeconds 0; the queue's own default would apply.
	c.Wait = max(min(orDefault(c.Wait, maxWait), maxWait, c.Visibility/2).Truncate(time.Second), time.Second)
	c.Slack = orDefault(c.Slack, 10*time.Second)
	c.Drain = min(orDefault(c.Drain, c.Wait+c.Slack), c.Wait+c.Slack)
	c.CallTimeout = min(orDefault(c.CallTimeout, 5*time.Second), c.Visibility/4)
	c.Linger = orDefault(c.Linger, 5*time.Millisecond)
	return c
}

// orDefault returns the default for a duration of zero or less.
func orDefault(d, otherwise time.Duration) time.Duration {
	if d <= 0 {
		return otherwise
	}
	return d
}

func (c Config) fifo() bool { return strings.HasSuffix(c.URL, ".fifo") }

// noRetry turns off the SDK's retries for a call.
func noRetry(o *sqs.Options) { o.Retryer = aws.NopRetryer{} }

func (c *Client) observePolled(msgs []*Message, err error) {
	if f := c.cfg.Observer.Polled; f != nil {
		f(msgs, err)
	}
}

func (c *Client) observeFailed(operation string, entries int, err error) {
	if f := c.cfg.Observer.Failed; f != nil {
		f(operation, entries, err)
	}
}

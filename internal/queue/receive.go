package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"imagemanager.internal/internal/awserr"
)

// Receive polls once for up to n messages, 10 at most, and waits Config.Wait for the
// first. Receiving none is not an error. Each message returned is held from the moment of
// the request; while Run is running, its lease is extended until the message is ended.
//
// The end of ctx does not cut a poll in flight: SQS might have handed out messages
// already, and they would be invisible to everybody until their visibility ends. The poll
// goes on for Config.Drain at most and returns its messages as usual; the caller gives
// them back with Release. If ctx has ended before, Receive returns its cause without a
// call.
//
// Errors: ErrFIFO; those of the SQS client, see awserr.Classify.
func (c *Client) Receive(ctx context.Context, n int) ([]*Message, error) {
	if c.cfg.fifo() {
		return nil, fmt.Errorf("%w: %s", ErrFIFO, c.cfg.URL)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if n < 1 {
		return nil, nil
	}
	msgs, err := c.poll(ctx, n)
	if err == nil || ctx.Err() == nil {
		c.observePolled(msgs, err)
	}
	return msgs, err
}

// poll makes the call.
func (c *Client) poll(ctx context.Context, n int) ([]*Message, error) {
	poll, stop := c.pollContext(ctx)
	defer stop()
	asked := time.Now()
	out, err := c.api.ReceiveMessage(poll, &sqs.ReceiveMessageInput{
		QueueUrl:                    aws.String(c.cfg.URL),
		MaxNumberOfMessages:         int32(min(n, maxBatch)),
		WaitTimeSeconds:             seconds(c.cfg.Wait),
		VisibilityTimeout:           seconds(c.cfg.Visibility),
		MessageSystemAttributeNames: systemAttributes,
	}, noRetry)
	if err != nil {
		return nil, fmt.Errorf("receive: %w", awserr.Plain(err))
	}
	received := time.Now()
	msgs := make([]*Message, 0, len(out.Messages))
	for _, raw := range out.Messages {
		m := newMessage(raw, received)
		m.lease = c.leases.track(m.ID, aws.ToString(raw.ReceiptHandle), asked, received)
		msgs = append(msgs, m)
	}
	return msgs, nil
}

// PollTimeout is how long a poll takes at most.
func (c *Client) PollTimeout() time.Duration { return c.cfg.Wait + c.cfg.Slack }

// pollContext returns the context of a poll. It has its own deadline, and ends
// Config.Drain after ctx at the latest.
func (c *Client) pollContext(ctx context.Context) (context.Context, context.CancelFunc) {
	poll, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.PollTimeout())
	release := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(c.cfg.Drain, cancel)
		context.AfterFunc(poll, func() { timer.Stop() })
	})
	return poll, func() { release(); cancel() }
}

// seconds converts a duration to SQS's unit.
func seconds(d time.Duration) int32 { return int32(d / time.Second) }

package queue

import (
	"context"
	"fmt"
	"time"

	"imagemanager.internal/internal/awserr"
)

// Delete deletes the message from the queue and ends its heartbeat, whatever the outcome.
// Deletes made at about the same time share a call. A failed delete is tried again with
// the handle of the message's last receive. Deleting a deleted message succeeds.
//
// ctx should be one that outlives a shutdown: if the work is done and the message is not
// deleted, the message comes back. Success is not proof: a standard queue may deliver a
// deleted message again. Errors: ErrLeaseLost when the queue says that nobody or somebody
// else holds the message, so it will be delivered again; ctx's cause; those of the SQS
// client.
func (c *Client) Delete(ctx context.Context, m *Message) error {
	if m.lease == nil {
		return fmt.Errorf("delete: %w: it was not received", ErrLeaseLost)
	}
	l, handle := c.leases.beginDelete(m)
	if l == nil {
		return nil
	}
	err := c.deletes.do(ctx, l, handle, 0)
	c.leases.recordDelete(m, l, err == nil)
	if err != nil {
		return fmt.Errorf("delete message %s: %w", m.ID, err)
	}
	return nil
}

// deleteRule takes an invalid handle as a success: the message was deleted earlier. If
// the message has been received again, the delete may have had no effect, whatever the
// answer.
func deleteRule(err error, renewed bool) (final error, again bool) {
	switch {
	case renewed:
		return err, true
	case err == nil || awserr.Code(err) == handleInvalid:
		return nil, false
	case handleExpired(err):
		return fmt.Errorf("%w: %w", ErrLeaseLost, err), false
	}
	return err, awserr.Retryable(err)
}

// Release gives the message back: it becomes visible to every consumer after the delay,
// or at once if the delay is 0. The delay is rounded up to whole seconds and cut to SQS's
// limit. The heartbeat of the message ends, whatever the outcome: the message is visible
// at the latest when its visibility time-out ends. If this process has received the same
// message twice, it stays invisible until both have been released.
//
// Errors: ErrLeaseLost when the message is already visible or held elsewhere; ctx's
// cause; those of the SQS client.
func (c *Client) Release(ctx context.Context, m *Message, delay time.Duration) error {
	if m.lease == nil {
		return fmt.Errorf("release: %w: it was not received", ErrLeaseLost)
	}
	handle, err := c.leases.endForRelease(m)
	if handle != "" {
		err = c.releases.do(ctx, m.lease, handle, c.releaseDelay(m.lease, delay))
	}
	if err != nil {
		return fmt.Errorf("release message %s: %w", m.ID, err)
	}
	return nil
}

// releaseDelay is the visibility time-out to ask for.
func (c *Client) releaseDelay(l *lease, d time.Duration) int32 {
	whole := (max(d, 0) + time.Second - 1).Truncate(time.Second)
	return seconds(max(0, min(whole, c.leases.remaining(l))))
}

// releaseRule does not try again after the lease is lost. The batcher already leaves
// alone a message received again.
func releaseRule(err error, _ bool) (final error, again bool) {
	switch {
	case err == nil:
		return nil, false
	case handleExpired(err):
		return fmt.Errorf("%w: %w", ErrLeaseLost, err), false
	}
	return err, awserr.Retryable(err)
}

package queue

import (
	"context"
	"fmt"
	"time"

	"imagemanager.internal/internal/awserr"
)

// Delete deletes the message from the queue and ends its heartbeat, whatever comes of it.
// Deletes that happen at about the same time share a call; a failed one is tried again,
// with the handle of the message's last receive. Deleting what is deleted already
// succeeds.
//
// ctx should be one that a shutdown does not end: a message that has been worked on and
// is not deleted comes back. Success is not proof: a standard queue may deliver a deleted
// message again. Errors: ErrLost when the queue says that the message is held by nobody
// or somebody else, and so will be delivered again; ctx's cause; those of the SQS client.
func (c *Client) Delete(ctx context.Context, m *Message) error {
	if m.lease == nil {
		return fmt.Errorf("delete: %w: it was not received", ErrLost)
	}
	l, handle := c.leases.deleting(m)
	if l == nil {
		return nil
	}
	err := c.deletes.do(ctx, l, handle, 0)
	c.leases.deleted(m, l, err == nil)
	if err != nil {
		return fmt.Errorf("delete message %s: %w", m.ID, err)
	}
	return nil
}

// judgeDelete takes a handle that is no longer valid as a success: the message was
// deleted earlier. If the message has been received anew the delete may have hit nothing,
// however it was answered.
func judgeDelete(err error, renewed bool) (final error, again bool) {
	switch {
	case renewed:
		return err, true
	case err == nil || awserr.Code(err) == handleInvalid:
		return nil, false
	case gone(err):
		return fmt.Errorf("%w: %w", ErrLost, err), false
	}
	return err, awserr.Retryable(err)
}

// Release gives the message back: it becomes visible to every consumer after the delay,
// at once if that is 0. The delay is rounded up to whole seconds and cut to what SQS
// allows. Its heartbeat ends, whatever comes of it: at the latest the message is visible
// when its visibility time-out ends. While the same message, received again, is held by
// somebody else in this process, the release waits for theirs.
//
// Errors: ErrLost when the message is visible or held elsewhere already; ctx's cause;
// those of the SQS client.
func (c *Client) Release(ctx context.Context, m *Message, delay time.Duration) error {
	if m.lease == nil {
		return fmt.Errorf("release: %w: it was not received", ErrLost)
	}
	handle, err := c.leases.release(m)
	if handle != "" {
		err = c.releases.do(ctx, m.lease, handle, c.delay(m.lease, delay))
	}
	if err != nil {
		return fmt.Errorf("release message %s: %w", m.ID, err)
	}
	return nil
}

// delay is the time-out to ask for.
func (c *Client) delay(l *lease, d time.Duration) int32 {
	whole := (max(d, 0) + time.Second - 1).Truncate(time.Second)
	return seconds(max(0, min(whole, c.leases.rest(l))))
}

// judgeRelease does not try again to give back what is no longer held. That a message
// received anew is left alone is the batcher's doing.
func judgeRelease(err error, _ bool) (final error, again bool) {
	switch {
	case err == nil:
		return nil, false
	case gone(err):
		return fmt.Errorf("%w: %w", ErrLost, err), false
	}
	return err, awserr.Retryable(err)
}

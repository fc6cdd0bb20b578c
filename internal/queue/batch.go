package queue

import (
	"context"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// A batched call is tried so often; between tries there is a random part of a pause that
// doubles.
const (
	maxTries   = 5
	firstPause = 200 * time.Millisecond
)

// entry is one line of a batch.
type entry struct {
	handle  string
	seconds int32 // the visibility wanted; not for deletes
}

// change sets the visibility of up to ten messages and returns an error or nil for each.
func (c *Client) change(ctx context.Context, entries []entry) []error {
	return c.noted(ctx, &c.changing, c.changeOnce(ctx, entries))
}

// noted takes down what became of a call, unless its caller ended it.
func (c *Client) noted(ctx context.Context, t *trouble, errs []error) []error {
	if ctx.Err() == nil && t.note(errs, time.Now()) {
		c.leases.nudge()
	}
	return errs
}

func (c *Client) changeOnce(ctx context.Context, entries []entry) []error {
	in := &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: aws.String(c.cfg.URL)}
	for i, e := range entries {
		in.Entries = append(in.Entries, types.ChangeMessageVisibilityBatchRequestEntry{
			Id: position(i), ReceiptHandle: aws.String(e.handle), VisibilityTimeout: e.seconds,
		})
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.CallTimeout)
	defer cancel()
	out, err := c.api.ChangeMessageVisibilityBatch(ctx, in, once)
	if err != nil {
		return outcomes(len(entries), err, nil, nil)
	}
	ok := make([]*string, 0, len(out.Successful))
	for _, s := range out.Successful {
		ok = append(ok, s.Id)
	}
	return outcomes(len(entries), nil, ok, out.Failed)
}

// remove deletes up to ten messages and returns an error or nil for each.
func (c *Client) remove(ctx context.Context, entries []entry) []error {
	return c.noted(ctx, &c.removing, c.removeOnce(ctx, entries))
}

func (c *Client) removeOnce(ctx context.Context, entries []entry) []error {
	in := &sqs.DeleteMessageBatchInput{QueueUrl: aws.String(c.cfg.URL)}
	for i, e := range entries {
		in.Entries = append(in.Entries,
			types.DeleteMessageBatchRequestEntry{Id: position(i), ReceiptHandle: aws.String(e.handle)})
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.CallTimeout)
	defer cancel()
	out, err := c.api.DeleteMessageBatch(ctx, in, once)
	if err != nil {
		return outcomes(len(entries), err, nil, nil)
	}
	ok := make([]*string, 0, len(out.Successful))
	for _, s := range out.Successful {
		ok = append(ok, s.Id)
	}
	return outcomes(len(entries), nil, ok, out.Failed)
}

// position is an entry's id. Message ids would not do: one message received twice makes
// them equal, and SQS then refuses the whole batch.
func position(i int) *string { return aws.String(strconv.Itoa(i)) }

// outcomes gives every entry its own error: that of the call, its own under an answer
// with status 200, or that it was not mentioned.
func outcomes(n int, err error, ok []*string, failed []types.BatchResultErrorEntry) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = errUnanswered
		if err != nil {
			errs[i] = err
		}
	}
	set := func(id *string, err error) {
		if i, bad := strconv.Atoi(aws.ToString(id)); bad == nil && i >= 0 && i < n {
			errs[i] = err
		}
	}
	for _, id := range ok {
		set(id, nil)
	}
	for _, f := range failed {
		set(f.Id, entryError(f))
	}
	return errs
}

// call is one caller's entry, and where it waits for the result.
type call struct {
	lease   *lease
	handle  string // for the next try, and of the last
	seconds int32
	result  chan error
}

// judgement is the opinion on one try of a call: its final result, or that it is to be
// tried again. renewed says that the message has been received anew since.
type judgement func(err error, renewed bool) (final error, again bool)

// batcher makes few calls of many: the first caller's batch waits a moment for others. It
// has no goroutine of its own; each batch has one, which ends when the batch has, and
// that is as soon as nobody waits for it any more.
type batcher struct {
	send   func(context.Context, []entry) []error
	newest func(*lease) string // the handle of the message's last receive
	follow bool                // to that handle; otherwise a message that has been received anew is done with
	judge  judgement
	failed func(entries int, err error)
	linger time.Duration

	mu   sync.Mutex
	open *batch // takes more calls; nil if there is none
}

// batch is what one goroutine sends.
type batch struct {
	calls   []*call
	full    chan struct{}
	waiting int // callers; guarded by batcher.mu, as are calls while the batch is open
	cancel  context.CancelFunc
}

// do adds a call to a batch and waits for its result, or for the end of ctx, after which
// the call may still take effect.
func (b *batcher) do(ctx context.Context, l *lease, handle string, seconds int32) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	// buffered: the caller may be gone
	one := &call{lease: l, handle: handle, seconds: seconds, result: make(chan error, 1)}
	in := b.join(ctx, one)
	select {
	case err := <-one.result:
		b.leave(in)
		return err
	case <-ctx.Done():
	}
	if !b.leave(in) {
		return context.Cause(ctx)
	}
	in.cancel() // and wait: nobody else would
	if err := <-one.result; err == nil {
		return nil
	}
	return context.Cause(ctx)
}

// join adds the call to the open batch, or opens one.
func (b *batcher) join(ctx context.Context, one *call) *batch {
	b.mu.Lock()
	defer b.mu.Unlock()
	in := b.open
	if in == nil {
		in = &batch{full: make(chan struct{})}
		var shared context.Context
		shared, in.cancel = context.WithCancel(context.WithoutCancel(ctx))
		b.open = in
		go b.run(shared, in)
	}
	in.calls = append(in.calls, one)
	in.waiting++
	if len(in.calls) == maxBatch {
		b.open = nil
		close(in.full)
	}
	return in
}

// leave tells whether the caller was the last that waited for the batch. If so nothing
// can be added to it any more.
func (b *batcher) leave(in *batch) (last bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	in.waiting--
	if in.waiting == 0 && b.open == in {
		b.open = nil
	}
	return in.waiting == 0
}

// run sends a batch when it is full or has waited long enough, and again what failed.
func (b *batcher) run(ctx context.Context, in *batch) {
	defer in.cancel()
	timer := time.NewTimer(b.linger)
	defer timer.Stop()
	select {
	case <-in.full:
	case <-timer.C:
	case <-ctx.Done():
	}
	b.mu.Lock()
	if b.open == in {
		b.open = nil
	}
	rest := in.calls
	b.mu.Unlock()
	for try := 1; len(rest) > 0; try++ {
		rest = b.try(ctx, rest, try == maxTries)
		if len(rest) > 0 {
			timer.Reset(rand.N(firstPause << try))
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
		}
	}
}

// try sends the calls once, hands out what is final, and returns the rest.
func (b *batcher) try(ctx context.Context, calls []*call, final bool) (rest []*call) {
	calls = b.refresh(calls)
	if len(calls) == 0 {
		return nil
	}
	entries := make([]entry, 0, len(calls))
	for _, one := range calls {
		entries = append(entries, entry{handle: one.handle, seconds: one.seconds})
	}
	var failure error
	for i, err := range b.send(ctx, entries) {
		one := calls[i]
		result, again := b.judge(err, b.newest(one.lease) != one.handle)
		if again && !final && ctx.Err() == nil {
			rest = append(rest, one)
			failure = result
			continue
		}
		one.result <- result
	}
	if len(rest) > 0 {
		b.failed(len(rest), failure)
	}
	return rest
}

// refresh gives the calls the handles to be sent now, and ends those that have become
// pointless.
func (b *batcher) refresh(calls []*call) []*call {
	var fresh []*call
	for _, one := range calls {
		newest := b.newest(one.lease)
		if newest != one.handle && !b.follow {
			one.result <- nil
			continue
		}
		one.handle = newest
		fresh = append(fresh, one)
	}
	return fresh
}

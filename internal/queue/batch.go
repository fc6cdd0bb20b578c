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

	"imagemanager.internal/internal/awserr"
)

const (
	// maxTries is how often a batched call is tried.
	maxTries = 5
	// firstPause bounds the first pause between two tries. The bound doubles with each
	// try, and the pause is a random part of it.
	firstPause = 200 * time.Millisecond
)

// entry is one line of a batch.
type entry struct {
	handle  string
	seconds int32 // the visibility wanted; not for deletes
}

// changeVisibility sets the visibility of up to ten messages and returns an error or nil
// for each.
func (c *Client) changeVisibility(ctx context.Context, entries []entry) []error {
	return c.recordOutcome(ctx, &c.changing, c.sendChanges(ctx, entries))
}

// recordOutcome records the outcome of a call, unless its caller ended it.
func (c *Client) recordOutcome(ctx context.Context, t *trouble, errs []error) []error {
	if ctx.Err() == nil && t.record(errs, time.Now()) {
		c.leases.wakeUp()
	}
	return errs
}

func (c *Client) sendChanges(ctx context.Context, entries []entry) []error {
	in := &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: aws.String(c.cfg.URL)}
	for i, e := range entries {
		in.Entries = append(in.Entries, types.ChangeMessageVisibilityBatchRequestEntry{
			Id: entryID(i), ReceiptHandle: aws.String(e.handle), VisibilityTimeout: e.seconds,
		})
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.CallTimeout)
	defer cancel()
	out, err := c.api.ChangeMessageVisibilityBatch(ctx, in, noRetry)
	if err != nil {
		return entryErrors(len(entries), awserr.Plain(err), nil, nil)
	}
	ok := make([]*string, 0, len(out.Successful))
	for _, s := range out.Successful {
		ok = append(ok, s.Id)
	}
	return entryErrors(len(entries), nil, ok, out.Failed)
}

// deleteEntries deletes up to ten messages and returns an error or nil for each.
func (c *Client) deleteEntries(ctx context.Context, entries []entry) []error {
	return c.recordOutcome(ctx, &c.removing, c.sendDeletes(ctx, entries))
}

func (c *Client) sendDeletes(ctx context.Context, entries []entry) []error {
	in := &sqs.DeleteMessageBatchInput{QueueUrl: aws.String(c.cfg.URL)}
	for i, e := range entries {
		in.Entries = append(in.Entries,
			types.DeleteMessageBatchRequestEntry{Id: entryID(i), ReceiptHandle: aws.String(e.handle)})
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.CallTimeout)
	defer cancel()
	out, err := c.api.DeleteMessageBatch(ctx, in, noRetry)
	if err != nil {
		return entryErrors(len(entries), awserr.Plain(err), nil, nil)
	}
	ok := make([]*string, 0, len(out.Successful))
	for _, s := range out.Successful {
		ok = append(ok, s.Id)
	}
	return entryErrors(len(entries), nil, ok, out.Failed)
}

// entryID is an entry's position. Message ids would not do: one message received twice
// makes them equal, and SQS then refuses the whole batch.
func entryID(i int) *string { return aws.String(strconv.Itoa(i)) }

// entryErrors gives every entry its own error: that of the whole call, its own under an
// answer with status 200, or errUnanswered.
func entryErrors(n int, err error, ok []*string, failed []types.BatchResultErrorEntry) []error {
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

// call is one caller's entry. The caller waits for the result.
type call struct {
	lease   *lease
	handle  string // of the next try, afterwards of the last
	seconds int32
	result  chan error
}

// retryRule decides on one try of a call: it returns the final result, or asks for
// another try. renewed reports whether the message has been received again since.
type retryRule func(err error, renewed bool) (final error, again bool)

// batcher combines the calls of many callers: the first caller's batch waits a moment for
// others. Each batch has one goroutine; the batcher itself has none. The goroutine ends
// with its batch, at the latest when nobody waits for the batch any more.
type batcher struct {
	send         func(context.Context, []entry) []error
	newestHandle func(*lease) string // of the message's last receive
	followHandle bool                // retry with the newest handle; otherwise a message received again is left alone
	rule         retryRule
	failed       func(entries int, err error)
	linger       time.Duration

	mu   sync.Mutex
	open *batch // takes more calls; nil if there is none
}

// batch is the work of one goroutine.
type batch struct {
	calls   []*call
	full    chan struct{}
	waiting int // callers; guarded by batcher.mu, as are calls while the batch is open
	cancel  context.CancelFunc
}

// do adds a call to a batch and waits for its result, or for the end of ctx. After that
// the call may still take effect.
func (b *batcher) do(ctx context.Context, l *lease, handle string, seconds int32) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	// buffered: the caller may be gone
	mine := &call{lease: l, handle: handle, seconds: seconds, result: make(chan error, 1)}
	bt := b.join(ctx, mine)
	select {
	case err := <-mine.result:
		b.leave(bt)
		return err
	case <-ctx.Done():
	}
	if !b.leave(bt) {
		return context.Cause(ctx)
	}
	bt.cancel() // and wait for the goroutine: nobody else would
	if err := <-mine.result; err == nil {
		return nil
	}
	return context.Cause(ctx)
}

// join adds the call to the open batch, or opens one.
func (b *batcher) join(ctx context.Context, added *call) *batch {
	b.mu.Lock()
	defer b.mu.Unlock()
	bt := b.open
	if bt == nil {
		bt = &batch{full: make(chan struct{})}
		var shared context.Context
		shared, bt.cancel = context.WithCancel(context.WithoutCancel(ctx))
		b.open = bt
		go b.run(shared, bt)
	}
	bt.calls = append(bt.calls, added)
	bt.waiting++
	if len(bt.calls) == maxBatch {
		b.open = nil
		close(bt.full)
	}
	return bt
}

// leave reports whether the caller was the last to wait for the batch. If so it also
// closes the batch to further calls.
func (b *batcher) leave(bt *batch) (last bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	bt.waiting--
	if bt.waiting == 0 && b.open == bt {
		b.open = nil
	}
	return bt.waiting == 0
}

// run sends a batch when it is full or has waited long enough. It sends again the calls
// that failed.
func (b *batcher) run(ctx context.Context, bt *batch) {
	defer bt.cancel()
	timer := time.NewTimer(b.linger)
	defer timer.Stop()
	select {
	case <-bt.full:
	case <-timer.C:
	case <-ctx.Done():
	}
	b.mu.Lock()
	if b.open == bt {
		b.open = nil
	}
	rest := bt.calls
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

// try sends the calls once, hands out the final results, and returns the other calls.
func (b *batcher) try(ctx context.Context, calls []*call, lastTry bool) (rest []*call) {
	calls = b.refresh(calls)
	if len(calls) == 0 {
		return nil
	}
	entries := make([]entry, 0, len(calls))
	for _, cl := range calls {
		entries = append(entries, entry{handle: cl.handle, seconds: cl.seconds})
	}
	var failure error
	for i, err := range b.send(ctx, entries) {
		cl := calls[i]
		result, again := b.rule(err, b.newestHandle(cl.lease) != cl.handle)
		if again && !lastTry && ctx.Err() == nil {
			rest = append(rest, cl)
			failure = result
			continue
		}
		cl.result <- result
	}
	if len(rest) > 0 {
		b.failed(len(rest), failure)
	}
	return rest
}

// refresh gives the calls their newest handles, and ends the calls with nothing left to
// do.
func (b *batcher) refresh(calls []*call) []*call {
	var fresh []*call
	for _, cl := range calls {
		newest := b.newestHandle(cl.lease)
		if newest != cl.handle && !b.followHandle {
			cl.result <- nil
			continue
		}
		cl.handle = newest
		fresh = append(fresh, cl)
	}
	return fresh
}

package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testURL = "https://sqs.test/1/images"

// stored is a message as the queue keeps it.
type stored struct {
	id, body string
	handle   string // of the last receive
	trace    string
	sent     time.Time
	visible  time.Time // from then on
	limit    time.Time // 12 h after the last receive
	count    int
}

// fakeSQS is a standard queue in memory, by the developer guide: leases, handles, the 12
// h limit, partial batches. Its clock is time's, so it belongs into a synctest bubble
// wherever time matters.
type fakeSQS struct {
	mu       sync.Mutex
	messages []*stored
	arrived  chan struct{} // closed and replaced when something may be visible
	handles  int
	calls    map[string]int   // by operation
	batches  map[string][]int // sizes, by operation
	receives []*sqs.ReceiveMessageInput
	sends    []*sqs.SendMessageInput

	// fail is asked before every call, and before every entry of a batch with that
	// entry's handle. Its error is the answer; for an entry, a *smithy.GenericAPIError
	// is.
	fail func(operation, handle string) error
	// after is called when a call has taken effect and before it is answered.
	after func(ctx context.Context, operation string) error
	// mangle may change a batch's answer.
	mangle func(ok, failed []string) (okOut, failedOut []string)
}

func newFake() *fakeSQS {
	return &fakeSQS{
		arrived: make(chan struct{}), calls: map[string]int{}, batches: map[string][]int{},
	}
}

func (f *fakeSQS) put(bodies ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, body := range bodies {
		id := fmt.Sprintf("m%d", len(f.messages)+1)
		f.messages = append(f.messages, &stored{id: id, body: body, sent: time.Now(), visible: time.Now()})
	}
	f.wake()
}

func (f *fakeSQS) wake() {
	close(f.arrived)
	f.arrived = make(chan struct{})
}

// begin counts a call and asks for a fault.
func (f *fakeSQS) begin(operation string, entries int) error {
	f.mu.Lock()
	f.calls[operation]++
	if entries > 0 {
		f.batches[operation] = append(f.batches[operation], entries)
	}
	fail := f.fail
	f.mu.Unlock()
	if fail == nil {
		return nil
	}
	return fail(operation, "")
}

func (f *fakeSQS) end(ctx context.Context, operation string) error {
	f.mu.Lock()
	after := f.after
	f.mu.Unlock()
	if after == nil {
		return ctx.Err()
	}
	return after(ctx, operation)
}

func (f *fakeSQS) ReceiveMessage(ctx context.Context, in *sqs.ReceiveMessageInput,
	_ ...func(*sqs.Options),
) (*sqs.ReceiveMessageOutput, error) {
	if err := f.begin("receive", 0); err != nil {
		return nil, err
	}
	timer := time.NewTimer(time.Duration(in.WaitTimeSeconds) * time.Second)
	defer timer.Stop()
	f.mu.Lock()
	f.receives = append(f.receives, in)
	f.mu.Unlock()
	for {
		out, again := f.take(in)
		if len(out.Messages) > 0 {
			return out, f.end(ctx, "receive")
		}
		select {
		case <-again:
		case <-timer.C:
			return out, f.end(ctx, "receive")
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (f *fakeSQS) take(in *sqs.ReceiveMessageInput) (*sqs.ReceiveMessageOutput, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &sqs.ReceiveMessageOutput{}
	now := time.Now()
	for _, m := range f.messages {
		if m.visible.After(now) || len(out.Messages) == int(in.MaxNumberOfMessages) {
			continue
		}
		f.handles++
		m.handle = fmt.Sprintf("%s#%d", m.id, f.handles)
		m.count++
		m.limit = now.Add(12 * time.Hour)
		f.hide(m, time.Duration(in.VisibilityTimeout)*time.Second)
		out.Messages = append(out.Messages, types.Message{
			MessageId: aws.String(m.id), Body: aws.String(m.body), ReceiptHandle: aws.String(m.handle),
			Attributes: map[string]string{
				"ApproximateReceiveCount": strconv.Itoa(m.count),
				"SentTimestamp":           strconv.FormatInt(m.sent.UnixMilli(), 10),
				"AWSTraceHeader":          m.trace,
			},
		})
	}
	return out, f.arrived
}

// hide makes a message invisible for d, and wakes waiting receives when it is
// visible again.
func (f *fakeSQS) hide(m *stored, d time.Duration) {
	m.visible = time.Now().Add(d)
	if d == 0 {
		f.wake()
		return
	}
	time.AfterFunc(d, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.wake()
	})
}

// byHandle returns the message with this latest handle, nil if there is none.
func (f *fakeSQS) byHandle(handle string) *stored {
	for _, m := range f.messages {
		if m.handle == handle {
			return m
		}
	}
	return nil
}

func apiError(code string, fault smithy.ErrorFault) *smithy.GenericAPIError {
	return &smithy.GenericAPIError{Code: code, Fault: fault}
}

// batch runs one operation for every entry and answers the SDK's way.
func (f *fakeSQS) batch(operation string, ids, handles []string, do func(i int) *smithy.GenericAPIError) (ok []string,
	failed []types.BatchResultErrorEntry,
) {
	f.mu.Lock()
	defer f.mu.Unlock()
	errs := map[string]*smithy.GenericAPIError{}
	var bad []string
	for i, id := range ids {
		var err *smithy.GenericAPIError
		if f.fail == nil || !errors.As(f.fail(operation, handles[i]), &err) {
			err = do(i)
		}
		if err == nil {
			ok = append(ok, id)
			continue
		}
		errs[id] = err
		bad = append(bad, id)
	}
	if f.mangle != nil {
		ok, bad = f.mangle(ok, bad)
	}
	for _, id := range bad {
		failed = append(failed, types.BatchResultErrorEntry{
			Id: aws.String(id), Code: aws.String(errs[id].Code), SenderFault: errs[id].Fault == smithy.FaultClient,
		})
	}
	return ok, failed
}

// distinct is what SQS demands of the ids of a batch.
func distinct(ids []string) error {
	seen := map[string]bool{}
	for _, id := range ids {
		if seen[id] {
			return &types.BatchEntryIdsNotDistinct{}
		}
		seen[id] = true
	}
	if len(ids) > 10 {
		return &types.TooManyEntriesInBatchRequest{}
	}
	return nil
}

func (f *fakeSQS) ChangeMessageVisibilityBatch(ctx context.Context, in *sqs.ChangeMessageVisibilityBatchInput,
	_ ...func(*sqs.Options),
) (*sqs.ChangeMessageVisibilityBatchOutput, error) {
	var ids, handles []string
	for _, e := range in.Entries {
		ids, handles = append(ids, *e.Id), append(handles, *e.ReceiptHandle)
	}
	if err := f.begin("change", len(ids)); err != nil {
		return nil, err
	}
	if err := distinct(ids); err != nil {
		return nil, err
	}
	ok, failed := f.batch("change", ids, handles, func(i int) *smithy.GenericAPIError {
		m := f.byHandle(handles[i]) // SQS takes a late extension, too, where nobody else has the message
		d := time.Duration(in.Entries[i].VisibilityTimeout) * time.Second
		switch {
		case m == nil:
			return apiError("ReceiptHandleIsInvalid", smithy.FaultClient)
		case time.Now().Add(d).After(m.limit):
			return apiError("InvalidParameterValue", smithy.FaultClient)
		}
		f.hide(m, d)
		return nil
	})
	out := &sqs.ChangeMessageVisibilityBatchOutput{Failed: failed}
	for _, id := range ok {
		out.Successful = append(out.Successful, types.ChangeMessageVisibilityBatchResultEntry{Id: aws.String(id)})
	}
	return out, f.end(ctx, "change")
}

func (f *fakeSQS) DeleteMessageBatch(ctx context.Context, in *sqs.DeleteMessageBatchInput,
	_ ...func(*sqs.Options),
) (*sqs.DeleteMessageBatchOutput, error) {
	var ids, handles []string
	for _, e := range in.Entries {
		ids, handles = append(ids, *e.Id), append(handles, *e.ReceiptHandle)
	}
	if err := f.begin("delete", len(ids)); err != nil {
		return nil, err
	}
	if err := distinct(ids); err != nil {
		return nil, err
	}
	ok, failed := f.batch("delete", ids, handles, func(i int) *smithy.GenericAPIError {
		for at, m := range f.messages {
			if m.handle == handles[i] { // a stale handle succeeds and deletes nothing
				f.messages = append(f.messages[:at:at], f.messages[at+1:]...)
				break
			}
		}
		return nil
	})
	out := &sqs.DeleteMessageBatchOutput{Failed: failed}
	for _, id := range ok {
		out.Successful = append(out.Successful, types.DeleteMessageBatchResultEntry{Id: aws.String(id)})
	}
	return out, f.end(ctx, "delete")
}

func (f *fakeSQS) SendMessage(ctx context.Context, in *sqs.SendMessageInput,
	_ ...func(*sqs.Options),
) (*sqs.SendMessageOutput, error) {
	if err := f.begin("send", 0); err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.sends = append(f.sends, in)
	f.mu.Unlock()
	return &sqs.SendMessageOutput{}, f.end(ctx, "send")
}

func (f *fakeSQS) GetQueueAttributes(ctx context.Context, _ *sqs.GetQueueAttributesInput,
	_ ...func(*sqs.Options),
) (*sqs.GetQueueAttributesOutput, error) {
	if err := f.begin("attributes", 0); err != nil {
		return nil, err
	}
	return &sqs.GetQueueAttributesOutput{}, f.end(ctx, "attributes")
}

// left is how many messages the queue still has.
func (f *fakeSQS) left() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.messages)
}

// visible is how many messages a receive could bring now.
func (f *fakeSQS) visible() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.messages {
		if !m.visible.After(time.Now()) {
			n++
		}
	}
	return n
}

func (f *fakeSQS) count(operation string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[operation]
}

// sizes are those of the batches of an operation, as text.
func (f *fakeSQS) sizes(operation string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fmt.Sprint(f.batches[operation])
}

// edit does something to the queue behind everybody's back.
func (f *fakeSQS) edit(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
	f.wake()
}

// faults sets the function that injects errors.
func (f *fakeSQS) faults(fail func(operation, handle string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = fail
}

// pass lets time go by, and whatever happens in it happen.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// running starts the heartbeat of a client of the fake and stops it when the returned
// function is called.
func running(t *testing.T, f API, cfg Config) (*Client, func()) {
	t.Helper()
	cfg.URL = testURL
	c := New(f, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	return c, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

// receive receives n messages or fails.
func receive(t *testing.T, c *Client, n int) []*Message {
	t.Helper()
	msgs, err := c.Receive(t.Context(), n)
	if err != nil || len(msgs) != n {
		t.Fatalf("received %d messages, %v; want %d", len(msgs), err, n)
	}
	return msgs
}

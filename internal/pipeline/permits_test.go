package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"imagemanager.internal/internal/pipeline/health"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/queue"
	"imagemanager.internal/internal/store"
)

// s3Record is one record of a notification, for a key.
const s3Record = `{"eventVersion":"2.1","eventSource":"aws:s3","eventName":"ObjectCreated:Put",` +
	`"s3":{"bucket":{"name":"b"},"object":{"key":"%s","eTag":"e"}}}`

// roughQueue hands out messages of every kind, fails in every way, and counts what is
// held. It stops handing out after some.
type roughQueue struct {
	t     *testing.T
	cap   int
	total int
	done  func()

	mu     sync.Mutex
	r      *rand.Rand
	sent   int
	held   map[string]bool // by receipt handle
	bodies []string
}

func (q *roughQueue) ReceiveMessage(_ context.Context, in *sqs.ReceiveMessageInput,
	_ ...func(*sqs.Options),
) (*sqs.ReceiveMessageOutput, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if free := q.cap - len(q.held); int(in.MaxNumberOfMessages) > min(10, free) {
		q.t.Errorf("asked for %d messages with %d permits free", in.MaxNumberOfMessages, free)
	}
	switch {
	case q.sent >= q.total && len(q.held) == 0:
		q.done()
		return &sqs.ReceiveMessageOutput{}, nil
	case q.r.IntN(20) == 0:
		return nil, &net.OpError{Op: "dial", Err: errors.New("refused")}
	case q.sent >= q.total || q.r.IntN(5) == 0:
		return &sqs.ReceiveMessageOutput{}, nil
	}
	out := &sqs.ReceiveMessageOutput{}
	for range 1 + q.r.IntN(int(in.MaxNumberOfMessages)) {
		q.sent++
		handle := fmt.Sprint("h", q.sent)
		q.held[handle] = true
		out.Messages = append(out.Messages, types.Message{
			MessageId: aws.String(fmt.Sprint("m", q.sent)), ReceiptHandle: aws.String(handle),
			Body: aws.String(q.bodies[q.r.IntN(len(q.bodies))]),
		})
	}
	return out, nil
}

func (q *roughQueue) DeleteMessageBatch(_ context.Context, in *sqs.DeleteMessageBatchInput,
	_ ...func(*sqs.Options),
) (*sqs.DeleteMessageBatchOutput, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := &sqs.DeleteMessageBatchOutput{}
	for _, e := range in.Entries {
		delete(q.held, *e.ReceiptHandle)
		out.Successful = append(out.Successful, types.DeleteMessageBatchResultEntry{Id: e.Id})
	}
	return out, nil
}

func (q *roughQueue) ChangeMessageVisibilityBatch(_ context.Context, in *sqs.ChangeMessageVisibilityBatchInput,
	_ ...func(*sqs.Options),
) (*sqs.ChangeMessageVisibilityBatchOutput, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := &sqs.ChangeMessageVisibilityBatchOutput{}
	for _, e := range in.Entries {
		delete(q.held, *e.ReceiptHandle) // given back; this queue does not deliver it again
		out.Successful = append(out.Successful, types.ChangeMessageVisibilityBatchResultEntry{Id: e.Id})
	}
	return out, nil
}

func (*roughQueue) SendMessage(context.Context, *sqs.SendMessageInput, ...func(*sqs.Options)) (*sqs.SendMessageOutput,
	error,
) {
	return nil, errors.New("no dead-letter queue here")
}

func (*roughQueue) GetQueueAttributes(context.Context, *sqs.GetQueueAttributesInput,
	...func(*sqs.Options),
) (*sqs.GetQueueAttributesOutput, error) {
	return nil, errors.New("not asked for")
}

// Permits are conserved: through any mix of full, partial, empty and failed polls, of
// messages that make sense or none, of one record or several, and of stages that succeed,
// fail and are retried, no more is asked for than there is room for, and in the end every
// permit is back.
func TestPermitsAreConserved(t *testing.T) {
	for seed := range uint64(5) {
		synctest.Test(t, func(t *testing.T) { conserved(t, seed) })
	}
}

func conserved(t *testing.T, seed uint64) {
	p := newPipeline(t)
	p.health.Capacity = func() health.Reasons { return nil }
	ctx, stop := context.WithCancel(t.Context())
	q := &roughQueue{
		t: t, cap: cap(p.messages.permits) + cap(p.messages.settling), total: 200, done: stop,
		r:    rand.New(rand.NewPCG(seed, 2)),
		held: map[string]bool{},
	}
	q.bodies = []string{
		"{", `{"Records":[]}`, `{"Event":"s3:TestEvent","Bucket":"b"}`,
		`{"Records":[` + fmt.Sprintf(s3Record, "other/x.tar") + `]}`,
	}
	for i := range 12 {
		one := fmt.Sprintf(s3Record, fmt.Sprintf("images/%d.tar", i))
		q.bodies = append(q.bodies, `{"Records":[`+one+`]}`, `{"Records":[`+one+`,`+
			fmt.Sprintf(s3Record, "images/x.tar")+
			`]}`)
	}
	p.messages.queue = queue.New(q, queue.Config{URL: "http://127.0.0.1/q", Wait: time.Second})
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(seed, 3))
	fake(p, map[store.Stage]*gauge{}, func(context.Context, *provision.Task, store.Stage) error {
		mu.Lock()
		defer mu.Unlock()
		if r.IntN(4) == 0 {
			return errors.New("a stage fails")
		}
		return nil
	})
	for i := range p.table {
		p.table[i].check = func(context.Context, *provision.Task) error { return nil }
	}
	if err := p.Run(ctx); err != nil {
		t.Fatal(err)
	}
	ms := p.messages
	if len(ms.permits) != 0 || len(ms.settling) != 0 || ms.held.Load() != 0 ||
		len(p.jobs.byImage) != 0 || len(q.held) != 0 {
		t.Errorf("seed %d: %d permits, %d being settled, %d jobs, %d messages left",
			seed, len(ms.permits), len(ms.settling), len(p.jobs.byImage), len(q.held))
	}
}

// deaf is a queue without end that does not answer a delete until its test ends.
type deaf struct{ sameAgain }

// ReceiveMessage has an end all the same: a fault shall fail the test, not hang it.
func (q *deaf) ReceiveMessage(ctx context.Context, in *sqs.ReceiveMessageInput, opts ...func(*sqs.Options),
) (*sqs.ReceiveMessageOutput, error) {
	q.mu.Lock()
	enough := q.sent > 10*maxSettling
	q.mu.Unlock()
	if enough {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return q.sameAgain.ReceiveMessage(ctx, in, opts...)
}

func (q *deaf) DeleteMessageBatch(ctx context.Context, _ *sqs.DeleteMessageBatchInput,
	_ ...func(*sqs.Options),
) (*sqs.DeleteMessageBatchOutput, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// While SQS answers no delete, a bounded number of messages is taken: those that may be
// in the middle of being settled, and those with a permit.
func TestUnsettledMessagesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipeline(t)
		p.health.Capacity = func() health.Reasons { return nil }
		q := &deaf{sameAgain{body: `{"Event":"s3:TestEvent","Bucket":"b"}`}}
		p.messages.queue = queue.New(q, queue.Config{URL: "http://127.0.0.1/q", Wait: time.Second})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- p.Run(ctx) }()
		synctest.Wait()
		q.mu.Lock()
		if most := cap(p.messages.permits) + maxSettling; q.sent != most {
			t.Errorf("%d messages are taken, want %d", q.sent, most)
		}
		if held := p.Status(ctx).Queue.Held; held != cap(p.messages.permits) {
			t.Errorf("%d messages are held, want those with a permit", held)
		}
		q.mu.Unlock()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// quiet is a queue without messages: a poll of it lasts.
type quiet struct{ roughQueue }

func (*quiet) ReceiveMessage(ctx context.Context, _ *sqs.ReceiveMessageInput,
	_ ...func(*sqs.Options),
) (*sqs.ReceiveMessageOutput, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// A daemon without work holds no message, though its poll has the permits.
func TestPollHoldsNoMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipeline(t)
		p.health.Capacity = func() health.Reasons { return nil }
		p.messages.queue = queue.New(&quiet{}, queue.Config{URL: "http://127.0.0.1/q", Wait: time.Second})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- p.Run(ctx) }()
		synctest.Wait()
		if held := p.Status(ctx).Queue.Held; held != 0 || len(p.messages.permits) == 0 {
			t.Errorf("%d messages are held, and %d permits taken", held, len(p.messages.permits))
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// With no permit free there is no call to the queue at all.
func TestNoPermitNoPoll(t *testing.T) {
	p := newPipeline(t)
	for range cap(p.messages.permits) {
		p.messages.permits <- struct{}{}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if n := p.messages.acquire(ctx, 10); n != 0 {
		t.Errorf("%d permits acquired of none", n)
	}
	<-p.messages.permits
	if n := p.messages.acquire(t.Context(), 10); n != 1 {
		t.Errorf("%d permits acquired of one", n)
	}
}

package pipeline

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"imagemanager.internal/internal/pipeline/health"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/queue"
	"imagemanager.internal/internal/store"
)

// sameAgain is a queue that says the same forever, and counts what is deleted.
type sameAgain struct {
	roughQueue
	body    string
	deletes int
	sent    int
	at      map[int]func() // called when so many have been deleted
}

func (q *sameAgain) ReceiveMessage(_ context.Context, in *sqs.ReceiveMessageInput,
	_ ...func(*sqs.Options),
) (*sqs.ReceiveMessageOutput, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := &sqs.ReceiveMessageOutput{}
	for range in.MaxNumberOfMessages {
		q.sent++
		id := aws.String(fmt.Sprint(q.sent))
		out.Messages = append(out.Messages, types.Message{MessageId: id, ReceiptHandle: id, Body: aws.String(q.body)})
	}
	return out, nil
}

func (q *sameAgain) DeleteMessageBatch(_ context.Context, in *sqs.DeleteMessageBatchInput,
	_ ...func(*sqs.Options),
) (*sqs.DeleteMessageBatchOutput, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := &sqs.DeleteMessageBatchOutput{}
	for _, e := range in.Entries {
		out.Successful = append(out.Successful, types.DeleteMessageBatchResultEntry{Id: e.Id})
		if q.deletes++; q.at[q.deletes] != nil {
			q.at[q.deletes]()
		}
	}
	return out, nil
}

// Any number of messages about an image that is there are answered from the journal, in
// flat memory and without an event. CIM_DUPLICATES sets how many.
func TestDuplicatePath(t *testing.T) {
	n := 2000
	if v, err := strconv.Atoi(os.Getenv("CIM_DUPLICATES")); err == nil {
		n = v
	}
	p := newPipeline(t)
	p.health.Capacity = func() health.Reasons { return nil }
	fake(p, map[store.Stage]*gauge{}, func(context.Context, *provision.Task, store.Stage) error { return nil })
	img := enqueue(t, p, 1)[0].Image
	for i := range p.table {
		p.table[i].check = func(ctx context.Context, job *provision.Task) error { // as the real ones: from the journal
			_, err := p.store.DevicesOf(ctx, job.Image.ID)
			return err
		}
	}
	var wg sync.WaitGroup
	for job := range chain(t.Context(), p, &wg, []*Job{p.jobs.byImage[img.ID]}) {
		p.finish(t.Context(), job, done)
	}
	wg.Wait()
	events, err := p.store.History(t.Context(), img.ID)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	var before, after uint64
	q := &sameAgain{body: `{"Records":[` + fmt.Sprintf(s3Record, "images/0.tar") + `]}`}
	q.at = map[int]func(){n / 10: func() { before = heap() }, n: func() { after = heap(); stop() }}
	p.messages.queue = queue.New(q, queue.Config{URL: "http://127.0.0.1/q", Wait: time.Second})
	began := time.Now()
	if err := p.Run(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d messages, %.0f a second; heap %d KiB, then %d KiB",
		n, float64(n)/time.Since(began).Seconds(), before>>10, after>>10)
	if after > before+before/2+1<<20 {
		t.Errorf("the heap grew from %d to %d bytes", before, after)
	}
	if now, err := p.store.History(t.Context(), img.ID); err != nil || len(now) != len(events) {
		t.Errorf("duplicates changed the journal: %d events, then %d, %v", len(events), len(now), err)
	}
}

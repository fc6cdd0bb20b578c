package pipeline

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/queue"
	"imagemanager.internal/internal/store"
)

// patientQueue delivers its messages again whenever they are visible, and counts. It has
// a dead-letter queue, which may fail.
type patientQueue struct {
	roughQueue
	bodies   map[string]string // by message id, which is the receipt handle, too
	visible  map[string]time.Time
	takes    int            // receives that brought a message
	receives map[string]int // by message
	sent     time.Time      // all of them; zero: the queue tells neither this nor how often
	extends  int
	copies   []string
	denied   error         // of SendMessage
	empty    chan struct{} // closed when nothing is left
}

func newPatientQueue(bodies ...string) *patientQueue {
	q := &patientQueue{
		bodies: map[string]string{}, visible: map[string]time.Time{}, receives: map[string]int{},
		empty: make(chan struct{}),
	}
	for i, body := range bodies {
		q.bodies[fmt.Sprint("m", i)] = body
	}
	return q
}

func (q *patientQueue) take(in *sqs.ReceiveMessageInput) []types.Message {
	q.mu.Lock()
	defer q.mu.Unlock()
	for id, body := range q.bodies {
		if q.visible[id].After(time.Now()) {
			continue
		}
		q.takes++
		q.visible[id] = time.Now().Add(time.Duration(in.VisibilityTimeout) * time.Second)
		q.receives[id]++
		m := types.Message{MessageId: aws.String(id), ReceiptHandle: aws.String(id), Body: aws.String(body)}
		if !q.sent.IsZero() {
			m.Attributes = map[string]string{
				"ApproximateReceiveCount": strconv.Itoa(q.receives[id]),
				"SentTimestamp":           strconv.FormatInt(q.sent.UnixMilli(), 10),
			}
		}
		return []types.Message{m}
	}
	return nil
}

func (q *patientQueue) ReceiveMessage(ctx context.Context, in *sqs.ReceiveMessageInput,
	_ ...func(*sqs.Options),
) (*sqs.ReceiveMessageOutput, error) {
	for range 10 {
		if msgs := q.take(in); len(msgs) > 0 {
			return &sqs.ReceiveMessageOutput{Messages: msgs}, nil
		}
		wait(ctx, 100*time.Millisecond)
	}
	return &sqs.ReceiveMessageOutput{}, ctx.Err()
}

func (q *patientQueue) DeleteMessageBatch(_ context.Context, in *sqs.DeleteMessageBatchInput,
	_ ...func(*sqs.Options),
) (*sqs.DeleteMessageBatchOutput, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := &sqs.DeleteMessageBatchOutput{}
	for _, e := range in.Entries {
		delete(q.bodies, *e.ReceiptHandle)
		out.Successful = append(out.Successful, types.DeleteMessageBatchResultEntry{Id: e.Id})
	}
	if len(q.bodies) == 0 {
		close(q.empty)
	}
	return out, nil
}

func (q *patientQueue) ChangeMessageVisibilityBatch(_ context.Context, in *sqs.ChangeMessageVisibilityBatchInput,
	_ ...func(*sqs.Options),
) (*sqs.ChangeMessageVisibilityBatchOutput, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := &sqs.ChangeMessageVisibilityBatchOutput{}
	for _, e := range in.Entries {
		if e.VisibilityTimeout == 60 {
			q.extends++
		}
		q.visible[*e.ReceiptHandle] = time.Now().Add(time.Duration(e.VisibilityTimeout) * time.Second)
		out.Successful = append(out.Successful, types.ChangeMessageVisibilityBatchResultEntry{Id: e.Id})
	}
	return out, nil
}

func (q *patientQueue) SendMessage(_ context.Context, in *sqs.SendMessageInput,
	_ ...func(*sqs.Options),
) (*sqs.SendMessageOutput, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.denied != nil {
		return nil, q.denied
	}
	q.copies = append(q.copies, *in.MessageAttributes[queue.AttributeReason].StringValue)
	return &sqs.SendMessageOutput{}, nil
}

// notified is a message about some keys.
func notified(keys ...string) string {
	var records []string
	for _, key := range keys {
		records = append(records,
			fmt.Sprintf(`{"eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"b"},"object":{"key":%q,"eTag":"e"}}}`,
				key))
	}
	return `{"Records":[` + strings.Join(records, ",") + `]}`
}

// work runs the pipeline on the queue, until that is empty or an hour has passed, and
// reports whether it is empty. do is asked for every attempt at a stage.
func work(t *testing.T, p *Pipeline, q *patientQueue, do func(key string, st store.Stage) error) (emptied bool) {
	t.Helper()
	p.messages.queue = queue.New(q, queue.Config{
		URL: "http://127.0.0.1/q", DeadLetterURL: "http://127.0.0.1/dead",
		Wait: time.Second, Visibility: time.Minute, Observer: p.metrics.Queue(),
	})
	fake(p, map[store.Stage]*gauge{},
		func(_ context.Context, job *provision.Task, st store.Stage) error { return do(job.Image.Key, st) })
	for i, st := range p.table {
		p.table[i].check = func(_ context.Context, job *provision.Task) error {
			if job.Image.Stage == "" && job.Image.State != store.StateActive || job.Image.Stage == st.name {
				return provision.ErrResultLost
			}
			return nil
		}
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Hour)
	defer stop()
	ran := make(chan error, 1)
	go func() { ran <- p.Run(ctx) }()
	select {
	case <-q.empty:
		emptied = true
	case <-ctx.Done():
	}
	stop()
	if err := <-ran; err != nil {
		t.Error(err)
	}
	if len(p.messages.permits) != 0 {
		t.Errorf("%d permits left", len(p.messages.permits))
	}
	return emptied
}

// state is the state of a key's image.
func state(t *testing.T, p *Pipeline, key string) store.State {
	t.Helper()
	images, err := p.store.ByKey(t.Context(), key)
	if err != nil || len(images) != 1 {
		t.Fatalf("%v, %+v", err, images)
	}
	return images[0].State
}

// staggered makes a fail from the start, and b once at the download and then at the
// unpack, so that their ends are one delivery apart.
func staggered(attempts map[string]int) func(string, store.Stage) error {
	var mu sync.Mutex
	return func(key string, st store.Stage) error {
		mu.Lock()
		defer mu.Unlock()
		attempts[key+" "+string(st)]++
		if key == "images/a.tar" || st == store.StageUnpack || attempts[key+" "+string(st)] == 1 {
			return errors.New("it fails")
		}
		return nil
	}
}

// Two failing records of one message, whose failures do not end at the same delivery, do
// not bring each other back: each has its attempts, and then the message is buried, once.
func TestTwoFailingRecords(t *testing.T) {
	for name, bodies := range map[string][]string{
		"one message": {notified("images/a.tar", "images/b.tar")},
		"two about the same objects": {
			notified("images/a.tar", "images/b.tar"),
			notified("images/b.tar", "images/a.tar"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, q := newPipeline(t), newPatientQueue(bodies...)
				p.cfg.Activations = len(bodies) // one permit each
				attempts := map[string]int{}
				if !work(t, p, q, staggered(attempts)) {
					t.Errorf("an hour later the message is still tried: %d times received", q.takes)
				}
				if len(q.copies) != len(bodies) || state(t, p, "images/a.tar") != store.StateDead ||
					state(t, p, "images/b.tar") != store.StateDead {
					t.Errorf("buried %d times, a is %s, b is %s",
						len(q.copies), state(t, p, "images/a.tar"), state(t, p, "images/b.tar"))
				}
				if n := attempts["images/a.tar download"]; n > 3*len(bodies) {
					t.Errorf("%d attempts at a", n)
				}
			})
		})
	}
}

// A new message about an image that was given up is a new chance, the same message is
// not.
func TestNewChance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, q := newPipeline(t), newPatientQueue(notified("images/a.tar"))
		broken := errors.New("it fails")
		attempts := 0
		do := func(string, store.Stage) error { attempts++; return broken }
		if !work(t, p, q, do) || state(t, p, "images/a.tar") != store.StateDead || attempts != 3 {
			t.Fatalf("%s after %d attempts", state(t, p, "images/a.tar"), attempts)
		}
		again := newPatientQueue(notified("images/a.tar")) // the same id: it could not be deleted, say
		if !work(t, p, again, do) || attempts != 3 || len(again.copies) != 1 || again.copies[0] != "it fails" {
			t.Errorf("the same message again: %d attempts, buried for %q", attempts, again.copies)
		}
		broken = nil
		other := newPatientQueue("", notified("images/a.tar"))
		delete(other.bodies, "m0")
		if !work(t, p, other, do) || state(t, p, "images/a.tar") != store.StateActive {
			t.Errorf("a new message: %s", state(t, p, "images/a.tar"))
		}
	})
}

// An object that had vanished is looked for again when a new message names it, and not
// because a sibling of its record makes the old one come again.
func TestVanishedBesideAFailing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, q := newPipeline(t), newPatientQueue(notified("images/a.tar", "images/b.tar"))
		var mu sync.Mutex
		attempts := map[string]int{}
		do := func(key string, _ store.Stage) error {
			mu.Lock()
			defer mu.Unlock()
			attempts[key]++
			if key == "images/a.tar" {
				return fmt.Errorf("a: %w", download.ErrGone)
			}
			return errors.New("it fails")
		}
		p.cfg.MaxAttempts = 6
		if !work(t, p, q, do) || state(t, p, "images/a.tar") != store.StateVanished ||
			state(t, p, "images/b.tar") != store.StateDead {
			t.Errorf("a is %s, b is %s", state(t, p, "images/a.tar"), state(t, p, "images/b.tar"))
		}
		before := attempts["images/a.tar"]
		if before != 2 {
			t.Errorf("asked %d times for an object that was gone twice", before)
		}
		again := newPatientQueue("", notified("images/a.tar"))
		delete(again.bodies, "m0")
		if !work(t, p, again, do) || attempts["images/a.tar"] != before+2 {
			t.Errorf("a new message: asked %d times more, want twice", attempts["images/a.tar"]-before)
		}
	})
}

// A record that is none does not stop the others of its message; the message is kept.
func TestOneBadRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body := strings.Replace(notified("images/a.tar", "images/b.tar", "images/c.tar"), "images/b.tar", "images/%zz",
			1)
		p, q := newPipeline(t), newPatientQueue(body)
		if !work(t, p, q, func(string, store.Stage) error { return nil }) {
			t.Error("the message is not settled")
		}
		if state(t, p, "images/a.tar") != store.StateActive || state(t, p, "images/c.tar") != store.StateActive ||
			len(q.copies) != 1 {
			t.Errorf("a is %s, c is %s, buried %d times",
				state(t, p, "images/a.tar"), state(t, p, "images/c.tar"), len(q.copies))
		}
	})
}

// What the dead-letter queue does not take is kept in quarantine, and what cannot be kept
// there either is given back, again and again; in no case is it held.
func TestBuriedElsewhere(t *testing.T) {
	for name, denied := range map[string]error{
		"missing": &smithy.GenericAPIError{Code: "QueueDoesNotExist", Fault: smithy.FaultClient},
		"failing": &smithy.GenericAPIError{Code: "InternalFailure", Fault: smithy.FaultServer},
		"denied":  &smithy.GenericAPIError{Code: "AccessDenied", Fault: smithy.FaultClient},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, q := newPipeline(t), newPatientQueue("no notification")
				q.denied = denied
				if !work(t, p, q, nil) || q.takes != 1 {
					t.Errorf("received %d times", q.takes)
				}
				list, err := p.store.QuarantinedMessages(t.Context())
				if err != nil || len(list) != 1 || list[0].Body != "no notification" {
					t.Errorf("%v, in quarantine: %+v", err, list)
				}
			})
		})
	}
	t.Run("and the journal takes nothing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p, q := newPipeline(t), newPatientQueue("no notification")
			q.denied = &smithy.GenericAPIError{Code: "AccessDenied", Fault: smithy.FaultClient}
			p.store.Close()
			if work(t, p, q, nil) {
				t.Error("the message is gone")
			}
			if q.takes < 5 || q.extends != 0 {
				t.Errorf("in an hour received %d times, extended %d times; it is to come back, and not to be held",
					q.takes, q.extends)
			}
		})
	})
}

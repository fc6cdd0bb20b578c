package emulator_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"imagemanager.internal/test/emulator"
)

// inProcess is an HTTP client that calls the server itself: without sockets, a
// synctest bubble knows when all of it waits.
type inProcess struct{ server http.Handler }

// Do serves the request.
func (c inProcess) Do(r *http.Request) (*http.Response, error) {
	answer := httptest.NewRecorder()
	if r.Body == nil {
		r.Body = http.NoBody
	}
	c.server.ServeHTTP(answer, r)
	return answer.Result(), nil
}

// bubbled is an emulator for the inside of a synctest bubble, with SQS alone.
func bubbled(t *testing.T) *testbed {
	emu, err := emulator.New(emulator.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := emu.Close(); err != nil {
			t.Error(err)
		}
	})
	return &testbed{t: t, emu: emu, sqs: sqs.New(sqs.Options{
		Region: "us-east-1", BaseEndpoint: aws.String("http://emulator"), HTTPClient: inProcess{emu},
		Credentials: credentials.NewStaticCredentialsProvider("x", "x", ""),
	})}
}

// A poll that waits is answered when a message becomes visible, also where that
// moment moved, or came to be known, after the poll had begun.
func TestPollsFollowTheQueue(t *testing.T) {
	for name, c := range map[string]struct {
		// messages in flight when the poll begins, and for how many seconds
		hidden []int32
		change func(w *testbed, q string, held []types.Message) // what happens a second later
		want   time.Duration                                    // from the beginning of the poll to its answer
		got    int                                              // messages in the answer
	}{
		"nothing happens": {change: func(*testbed, string, []types.Message) {}, want: 20 * time.Second},
		"a visibility ends": {
			hidden: []int32{5}, change: func(*testbed, string, []types.Message) {}, want: 5 * time.Second, got: 1,
		},
		"a visibility is shortened": {
			hidden: []int32{300}, change: hideFor(0, 2), want: 3 * time.Second, got: 1,
		},
		"that of a message that was not the next is": {
			hidden: []int32{10, 300}, change: hideFor(1, 2), want: 3 * time.Second, got: 1,
		},
		"it is shortened in a batch": {
			hidden: []int32{300, 300},
			change: func(w *testbed, q string, held []types.Message) {
				_, err := w.sqs.ChangeMessageVisibilityBatch(w.t.Context(), &sqs.ChangeMessageVisibilityBatchInput{
					QueueUrl: &q, Entries: []types.ChangeMessageVisibilityBatchRequestEntry{
						{Id: aws.String("0"), ReceiptHandle: held[0].ReceiptHandle, VisibilityTimeout: 7},
						{Id: aws.String("1"), ReceiptHandle: held[1].ReceiptHandle, VisibilityTimeout: 2},
					},
				})
				w.check(err)
			},
			want: 3 * time.Second, got: 1,
		},
		"a visibility is extended": {
			hidden: []int32{2}, change: hideFor(0, 5), want: 6 * time.Second, got: 1,
		},
		"a message comes with a delay": {
			change: func(w *testbed, q string, _ []types.Message) {
				_, err := w.sqs.SendMessage(w.t.Context(),
					&sqs.SendMessageInput{QueueUrl: &q, MessageBody: aws.String("a"), DelaySeconds: 2})
				w.check(err)
			},
			want: 3 * time.Second, got: 1,
		},
		"a message comes to a queue that delays": {
			change: func(w *testbed, q string, _ []types.Message) {
				_, err := w.sqs.SetQueueAttributes(w.t.Context(),
					&sqs.SetQueueAttributesInput{QueueUrl: &q, Attributes: map[string]string{"DelaySeconds": "4"}})
				w.check(err)
				w.send(q, "a")
			},
			want: 5 * time.Second, got: 1,
		},
		"a message comes": {
			change: func(w *testbed, q string, _ []types.Message) { w.send(q, "a") }, want: time.Second, got: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := bubbled(t)
				q := w.newQueue(nil)
				var held []types.Message
				for _, seconds := range c.hidden {
					w.send(q, "held")
					held = append(held, w.one(q, seconds))
				}
				began := time.Now()
				time.AfterFunc(time.Second, func() { c.change(w, q, held) })
				got := w.receive(q, 20, 30)
				if took := time.Since(began); took != c.want || len(got) != c.got {
					t.Errorf("%d messages after %s, want %d after %s", len(got), took, c.got, c.want)
				}
			})
		})
	}
}

// hideFor changes the visibility of a message in flight, in either direction.
func hideFor(which int, seconds int32) func(w *testbed, q string, held []types.Message) {
	return func(w *testbed, q string, held []types.Message) {
		w.check(w.extend(q, held[which].ReceiptHandle, seconds))
	}
}

package emulator_test

import (
	"encoding/json"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

func TestLease(t *testing.T) {
	change := func(w *testbed, q string, handle *string, seconds int32) error {
		_, err := w.sqs.ChangeMessageVisibility(w.t.Context(),
			&sqs.ChangeMessageVisibilityInput{QueueUrl: &q, ReceiptHandle: handle, VisibilityTimeout: seconds})
		return err
	}
	remove := func(w *testbed, q string, handle *string) error {
		_, err := w.sqs.DeleteMessage(w.t.Context(), &sqs.DeleteMessageInput{QueueUrl: &q, ReceiptHandle: handle})
		return err
	}
	checks{
		"delete": func(_ *testing.T, w *testbed) {
			q := w.newQueue(nil)
			w.send(q, "a")
			m := w.one(q, 1)
			w.check(remove(w, q, m.ReceiptHandle))
			w.counts(q, 0, 0)
			w.check(remove(w, q, m.ReceiptHandle)) // again is not an error
		},
		"an expired handle that is the latest still deletes": func(t *testing.T, w *testbed) {
			q := w.newQueue(nil)
			w.send(q, "a")
			m := w.one(q, 1)
			w.counts(q, 1, 0)
			w.check(remove(w, q, m.ReceiptHandle))
			if got := w.receive(q, 1, 30); len(got) > 0 {
				t.Errorf("received %v", got)
			}
		},
		"visibility 0 gives it back at once": func(t *testing.T, w *testbed) {
			q := w.newQueue(nil)
			w.send(q, "a")
			m := w.one(q, 300)
			w.check(change(w, q, m.ReceiptHandle, 0))
			if again := w.one(q, 30); again.Attributes["ApproximateReceiveCount"] != "2" {
				t.Errorf("attributes %v", again.Attributes)
			}
		},
		"extended, it stays away": func(t *testing.T, w *testbed) {
			q := w.newQueue(nil)
			w.send(q, "a")
			m := w.one(q, 1)
			w.check(change(w, q, m.ReceiptHandle, 300))
			if got := w.receive(q, 2, 30); len(got) > 0 {
				t.Errorf("received %v", got)
			}
		},
		"extended too late, nobody else having it, is not an error": func(_ *testing.T, w *testbed) {
			q := w.newQueue(nil)
			w.send(q, "a")
			m := w.one(q, 1)
			w.counts(q, 1, 0)
			w.check(change(w, q, m.ReceiptHandle, 300)) // whether it hides the message again is not known of AWS
		},
		"nonsense is not a handle": func(t *testing.T, w *testbed) {
			q := w.newQueue(nil)
			failed[*types.ReceiptHandleIsInvalid](t, remove(w, q, aws.String("nonsense")))
			failed[*types.ReceiptHandleIsInvalid](t, change(w, q, aws.String("nonsense"), 10))
		},
		"after a delete the lease is lost": func(t *testing.T, w *testbed) {
			q := w.newQueue(nil)
			w.send(q, "a")
			m := w.one(q, 30)
			w.check(remove(w, q, m.ReceiptHandle))
			err := change(w, q, m.ReceiptHandle, 10)
			refused(t, err, "InvalidParameterValue", "InvalidParameterValueException", "ReceiptHandleIsInvalid",
				"MessageNotInflight")
			if status(err) != 400 {
				t.Errorf("status %d", status(err))
			}
		},
		"beyond 12 hours from the receive is refused": func(t *testing.T, w *testbed) {
			q := w.newQueue(nil)
			w.send(q, "a")
			m := w.one(q, 30)
			refused(t, change(w, q, m.ReceiptHandle, 43_201), "InvalidParameterValue", "InvalidParameterValueException")
		},
	}.run(t)
}

func TestBatches(t *testing.T) {
	checks{
		"good and bad entries in one answer": func(t *testing.T, w *testbed) {
			q := w.newQueue(nil)
			w.send(q, "a")
			m := w.one(q, 30)
			out, err := w.sqs.DeleteMessageBatch(t.Context(),
				&sqs.DeleteMessageBatchInput{QueueUrl: &q, Entries: []types.DeleteMessageBatchRequestEntry{
					{Id: aws.String("0"), ReceiptHandle: m.ReceiptHandle},
					{Id: aws.String("1"), ReceiptHandle: aws.String("nonsense")},
				}})
			w.check(err)
			if len(out.Successful) != 1 || aws.ToString(out.Successful[0].Id) != "0" || len(out.Failed) != 1 ||
				aws.ToString(out.Failed[0].Id) != "1" || !out.Failed[0].SenderFault ||
				aws.ToString(out.Failed[0].Code) != "ReceiptHandleIsInvalid" {
				t.Errorf("got %+v", out)
			}
			w.counts(q, 0, 0)
		},
		"visibility in a batch": func(t *testing.T, w *testbed) {
			q := w.newQueue(nil)
			w.send(q, "a")
			m := w.one(q, 300)
			out, err := w.sqs.ChangeMessageVisibilityBatch(t.Context(),
				&sqs.ChangeMessageVisibilityBatchInput{
					QueueUrl: &q,
					Entries: []types.ChangeMessageVisibilityBatchRequestEntry{
						{Id: aws.String("0"), ReceiptHandle: m.ReceiptHandle, VisibilityTimeout: 0},
						{Id: aws.String("1"), ReceiptHandle: aws.String("nonsense"), VisibilityTimeout: 0},
					},
				})
			w.check(err)
			if len(out.Successful) != 1 || len(out.Failed) != 1 {
				t.Errorf("got %+v", out)
			}
			w.one(q, 30)
		},
		"send in a batch": func(t *testing.T, w *testbed) {
			q := w.newQueue(nil)
			out, err := w.sqs.SendMessageBatch(t.Context(),
				&sqs.SendMessageBatchInput{QueueUrl: &q, Entries: []types.SendMessageBatchRequestEntry{
					{Id: aws.String("0"), MessageBody: aws.String("a")},
					{Id: aws.String("1"), MessageBody: aws.String("\a")},
				}})
			w.check(err)
			if len(out.Successful) != 1 || len(out.Failed) != 1 ||
				aws.ToString(out.Failed[0].Code) != "InvalidMessageContents" {
				t.Errorf("got %+v", out)
			}
		},
		"what is wrong with a batch as a whole": func(t *testing.T, w *testbed) {
			q := w.newQueue(nil)
			try := func(ids ...string) error {
				var entries []types.DeleteMessageBatchRequestEntry
				for _, id := range ids {
					entries = append(entries,
						types.DeleteMessageBatchRequestEntry{Id: aws.String(id), ReceiptHandle: aws.String("x")})
				}
				_, err := w.sqs.DeleteMessageBatch(t.Context(),
					&sqs.DeleteMessageBatchInput{QueueUrl: &q, Entries: entries})
				return err
			}
			failed[*types.BatchEntryIdsNotDistinct](t, try("a", "a"))
			failed[*types.InvalidBatchEntryId](t, try("no spaces"))
			failed[*types.TooManyEntriesInBatchRequest](t, try("0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"))
			_, err := w.sqs.SendMessageBatch(t.Context(),
				&sqs.SendMessageBatchInput{QueueUrl: &q, Entries: []types.SendMessageBatchRequestEntry{}})
			refused(t, err, "EmptyBatchRequest")
		},
	}.run(t)
}

// redriven makes a queue whose messages move to another after that many receives.
func (w *testbed) redriven(receives int) (queue, dead string) {
	w.t.Helper()
	dead = w.newQueue(nil)
	policy, err := json.Marshal(map[string]any{
		"deadLetterTargetArn": w.attributes(dead)["QueueArn"],
		"maxReceiveCount":     receives,
	})
	w.check(err)
	return w.newQueue(map[string]string{"RedrivePolicy": string(policy)}), dead
}

// kill sends a message and receives it until it is dead.
func (w *testbed) kill(queue, dead string, receives int) (id string, m types.Message) {
	w.t.Helper()
	id = w.send(queue, "poison")
	for range receives {
		got := w.one(queue, 300)
		_, err := w.sqs.ChangeMessageVisibility(w.t.Context(),
			&sqs.ChangeMessageVisibilityInput{QueueUrl: &queue, ReceiptHandle: got.ReceiptHandle, VisibilityTimeout: 0})
		w.check(err)
	}
	w.none(queue) // this receive moves it
	return id, w.one(dead, 1)
}

func TestDeadLetters(t *testing.T) {
	checks{
		"after the last receive it moves, with its id and its source": func(t *testing.T, w *testbed) {
			q, dead := w.redriven(2)
			id, m := w.kill(q, dead, 2)
			if aws.ToString(m.MessageId) != id || aws.ToString(m.Body) != "poison" ||
				m.Attributes["DeadLetterQueueSourceArn"] != w.attributes(q)["QueueArn"] {
				t.Errorf("got %+v", m)
			}
			w.counts(q, 0, 0)
		},
		"the sources of a dead-letter queue": func(t *testing.T, w *testbed) {
			q, dead := w.redriven(1)
			out, err := w.sqs.ListDeadLetterSourceQueues(t.Context(),
				&sqs.ListDeadLetterSourceQueuesInput{QueueUrl: &dead})
			w.check(err)
			if len(out.QueueUrls) != 1 || out.QueueUrls[0] != q {
				t.Errorf("got %v, want %s", out.QueueUrls, q)
			}
		},
		"a policy must be sound": func(t *testing.T, w *testbed) {
			q := w.newQueue(nil)
			missing := w.attributes(q)["QueueArn"] + "-missing"
			for _, policy := range []string{
				"nonsense", `{"deadLetterTargetArn":"` + missing + `","maxReceiveCount":3}`,
				`{"deadLetterTargetArn":"` + w.attributes(q)["QueueArn"] + `","maxReceiveCount":0}`,
			} {
				_, err := w.sqs.SetQueueAttributes(t.Context(),
					&sqs.SetQueueAttributesInput{QueueUrl: &q, Attributes: map[string]string{"RedrivePolicy": policy}})
				refused(t, err, "InvalidParameterValue", "InvalidParameterValueException", "InvalidAttributeValue")
			}
		},
		"moved back, it is a new message where it came from": func(t *testing.T, w *testbed) {
			q, dead := w.redriven(1)
			id, _ := w.kill(q, dead, 1)
			w.counts(dead, 1, 0)
			arn := w.attributes(dead)["QueueArn"]
			_, err := w.sqs.StartMessageMoveTask(t.Context(), &sqs.StartMessageMoveTaskInput{SourceArn: &arn})
			w.check(err)
			m := w.one(q, 30)
			if aws.ToString(m.Body) != "poison" || aws.ToString(m.MessageId) == id ||
				m.Attributes["ApproximateReceiveCount"] != "1" {
				t.Errorf("got %+v", m)
			}
			tasks, err := w.sqs.ListMessageMoveTasks(t.Context(), &sqs.ListMessageMoveTasksInput{SourceArn: &arn})
			w.check(err)
			if len(tasks.Results) != 1 || aws.ToString(tasks.Results[0].SourceArn) != arn {
				t.Errorf("got %+v", tasks.Results)
			}
		},
		"only a dead-letter queue's messages move back": func(t *testing.T, w *testbed) {
			arn := w.attributes(w.newQueue(nil))["QueueArn"]
			_, err := w.sqs.StartMessageMoveTask(t.Context(), &sqs.StartMessageMoveTaskInput{SourceArn: &arn})
			refused(t, err, "InvalidParameterValue", "InvalidParameterValueException", "UnsupportedOperation")
			missing := arn + "-missing"
			_, err = w.sqs.StartMessageMoveTask(t.Context(), &sqs.StartMessageMoveTaskInput{SourceArn: &missing})
			failed[*types.ResourceNotFoundException](t, err)
		},
	}.run(t)
}

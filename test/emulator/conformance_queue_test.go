package emulator_test

import (
	"crypto/md5" //nolint:gosec // what SQS uses
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// checks are independent of each other, and run at once.
type checks map[string]func(t *testing.T, w *testbed)

func (c checks) run(t *testing.T) {
	w := newTestbed(t)
	for name, check := range c {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			check(t, w.in(t))
		})
	}
}

func TestQueues(t *testing.T) {
	checks{
		"the URL is on the endpoint's host and can be asked for": func(t *testing.T, w *testbed) {
			url := w.newQueue(nil)
			name := url[strings.LastIndex(url, "/")+1:]
			got, err := w.sqs.GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: &name})
			w.check(err)
			if aws.ToString(got.QueueUrl) != url || w.emu != nil && !strings.HasPrefix(url, w.url+"/") {
				t.Errorf("got %s, made %s on %s", aws.ToString(got.QueueUrl), url, w.url)
			}
		},
		"defaults": func(t *testing.T, w *testbed) {
			got := w.attributes(w.newQueue(nil))
			for name, want := range map[string]string{
				"VisibilityTimeout": "30", "MessageRetentionPeriod": "345600", "DelaySeconds": "0",
				"ReceiveMessageWaitTimeSeconds": "0",
				"ApproximateNumberOfMessages":   "0", "ApproximateNumberOfMessagesNotVisible": "0",
				"ApproximateNumberOfMessagesDelayed": "0",
			} {
				if got[name] != want {
					t.Errorf("%s = %q, want %q", name, got[name], want)
				}
			}
			if !strings.HasPrefix(got["QueueArn"], "arn:aws:sqs:") {
				t.Errorf("QueueArn = %q", got["QueueArn"])
			}
		},
		"making it again with the same attributes returns it": func(t *testing.T, w *testbed) {
			url := w.newQueue(map[string]string{"VisibilityTimeout": "77"})
			name := url[strings.LastIndex(url, "/")+1:]
			again, err := w.sqs.CreateQueue(t.Context(),
				&sqs.CreateQueueInput{QueueName: &name, Attributes: map[string]string{"VisibilityTimeout": "77"}})
			w.check(err)
			if aws.ToString(again.QueueUrl) != url {
				t.Errorf("got %s, want %s", aws.ToString(again.QueueUrl), url)
			}
		},
		"making it again with others does not": func(t *testing.T, w *testbed) {
			url := w.newQueue(map[string]string{"VisibilityTimeout": "77"})
			name := url[strings.LastIndex(url, "/")+1:]
			_, err := w.sqs.CreateQueue(t.Context(),
				&sqs.CreateQueueInput{QueueName: &name, Attributes: map[string]string{"VisibilityTimeout": "78"}})
			failed[*types.QueueNameExists](t, err)
		},
		"a missing queue is a typed error of every operation": func(t *testing.T, w *testbed) {
			url := w.newQueue(nil) + "-missing"
			ctx := t.Context()
			for op, call := range map[string]func() error{
				"receive": func() error {
					_, err := w.sqs.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: &url})
					return err
				},
				"send": func() error {
					_, err := w.sqs.SendMessage(ctx,
						&sqs.SendMessageInput{QueueUrl: &url, MessageBody: aws.String("x")})
					return err
				},
				"delete": func() error {
					_, err := w.sqs.DeleteMessage(ctx,
						&sqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: aws.String("x")})
					return err
				},
				"attributes": func() error {
					_, err := w.sqs.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &url})
					return err
				},
				"url": func() error {
					_, err := w.sqs.GetQueueUrl(ctx,
						&sqs.GetQueueUrlInput{QueueName: aws.String(url[strings.LastIndex(url, "/")+1:])})
					return err
				},
			} {
				err := call()
				failed[*types.QueueDoesNotExist](t, err)
				refused(t, err, "NonExistentQueue", "QueueDoesNotExist")
				if status(err) != 400 {
					t.Errorf("%s: status %d, want 400", op, status(err))
				}
			}
		},
		"bad names and attributes are refused": func(t *testing.T, w *testbed) {
			try := func(name string, attributes map[string]string) error {
				_, err := w.sqs.CreateQueue(t.Context(),
					&sqs.CreateQueueInput{QueueName: &name, Attributes: attributes})
				return err
			}
			refused(t, try("no spaces", nil), "InvalidParameterValue", "InvalidParameterValueException")
			refused(t, try(strings.Repeat("x", 81), nil), "InvalidParameterValue", "InvalidParameterValueException")
			refused(t, try(unique("cim"), map[string]string{"VisibilityTimeout": "43201"}), "InvalidAttributeValue",
				"InvalidParameterValue")
			refused(t, try(unique("cim"), map[string]string{"MessageRetentionPeriod": "59"}), "InvalidAttributeValue",
				"InvalidParameterValue")
			refused(t, try(unique("cim"), map[string]string{"NoSuchThing": "1"}), "InvalidAttributeName")
		},
		"attributes can be set, and asked for by name": func(t *testing.T, w *testbed) {
			q := w.newQueue(nil)
			_, err := w.sqs.SetQueueAttributes(t.Context(),
				&sqs.SetQueueAttributesInput{
					QueueUrl:   &q,
					Attributes: map[string]string{"VisibilityTimeout": "5", "DelaySeconds": "1"},
				})
			w.check(err)
			got, err := w.sqs.GetQueueAttributes(t.Context(),
				&sqs.GetQueueAttributesInput{
					QueueUrl:       &q,
					AttributeNames: []types.QueueAttributeName{"VisibilityTimeout"},
				})
			w.check(err)
			if len(got.Attributes) != 1 || got.Attributes["VisibilityTimeout"] != "5" {
				t.Errorf("got %v", got.Attributes)
			}
		},
		"lists by prefix, in pages": func(t *testing.T, w *testbed) {
			prefix := unique("cim-list")
			for i := range 3 {
				q, err := w.sqs.CreateQueue(t.Context(),
					&sqs.CreateQueueInput{QueueName: aws.String(prefix + strconv.Itoa(i))})
				w.check(err)
				//nolint:errcheck // clean-up
				defer w.sqs.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: q.QueueUrl})
			}
			pages := sqs.NewListQueuesPaginator(w.sqs,
				&sqs.ListQueuesInput{QueueNamePrefix: &prefix, MaxResults: aws.Int32(2)})
			var sizes []int
			for pages.HasMorePages() {
				page, err := pages.NextPage(t.Context())
				w.check(err)
				sizes = append(sizes, len(page.QueueUrls))
			}
			if !slices.Equal(sizes, []int{2, 1}) {
				t.Errorf("pages of %v, want 2 and 1", sizes)
			}
		},
		"tags": func(t *testing.T, w *testbed) {
			q := w.newQueue(nil)
			_, err := w.sqs.TagQueue(t.Context(),
				&sqs.TagQueueInput{QueueUrl: &q, Tags: map[string]string{"a": "1", "b": "2"}})
			w.check(err)
			_, err = w.sqs.UntagQueue(t.Context(), &sqs.UntagQueueInput{QueueUrl: &q, TagKeys: []string{"a"}})
			w.check(err)
			got, err := w.sqs.ListQueueTags(t.Context(), &sqs.ListQueueTagsInput{QueueUrl: &q})
			w.check(err)
			if len(got.Tags) != 1 || got.Tags["b"] != "2" {
				t.Errorf("got %v", got.Tags)
			}
		},
		"purge takes the visible and those in flight": func(t *testing.T, w *testbed) {
			q := w.newQueue(nil)
			w.send(q, "a")
			w.one(q, 30)
			w.send(q, "b")
			_, err := w.sqs.PurgeQueue(t.Context(), &sqs.PurgeQueueInput{QueueUrl: &q})
			w.check(err)
			w.counts(q, 0, 0)
		},
		"a deleted queue is gone": func(t *testing.T, w *testbed) {
			q := w.newQueue(nil)
			_, err := w.sqs.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &q})
			w.check(err)
			_, err = w.sqs.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &q})
			failed[*types.QueueDoesNotExist](t, err)
		},
	}.run(t)
}

// counts waits until the queue reports these numbers of messages visible and in flight.
// SQS calls them approximate.
func (w *testbed) counts(queue string, visible, inFlight int) {
	w.t.Helper()
	want := fmt.Sprint(visible, " visible, ", inFlight, " in flight")
	got := ""
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for range 50 {
		a := w.attributes(queue)
		if got = a["ApproximateNumberOfMessages"] + " visible, " + a["ApproximateNumberOfMessagesNotVisible"] +
			" in flight"; got == want {
			return
		}
		<-tick.C
	}
	w.t.Errorf("%s, want %s", got, want)
}

func TestDelivery(t *testing.T) {
	checks{
		"a message has its id, digest and system attributes": func(t *testing.T, w *testbed) {
			q := w.newQueue(nil)
			out, err := w.sqs.SendMessage(t.Context(), &sqs.SendMessageInput{
				QueueUrl: &q, MessageBody: aws.String("hällo <&>"),
				MessageSystemAttributes: map[string]types.MessageSystemAttributeValue{
					"AWSTraceHeader": {
						DataType:    aws.String("String"),
						StringValue: aws.String("Root=1-5759e988-bd862e3fe1be46a994272793"),
					},
				},
			})
			w.check(err)
			m := w.one(q, 30)
			want := fmt.Sprintf("%x", md5.Sum([]byte("hällo <&>"))) //nolint:gosec // what SQS uses
			if aws.ToString(m.MessageId) != aws.ToString(out.MessageId) || aws.ToString(m.Body) != "hällo <&>" ||
				aws.ToString(m.MD5OfBody) != want || aws.ToString(out.MD5OfMessageBody) != want {
				t.Errorf("sent %v, received %v", aws.ToString(out.MessageId), m)
			}
			sent, _ := strconv.ParseInt(m.Attributes["SentTimestamp"], 10, 64)
			first, _ := strconv.ParseInt(m.Attributes["ApproximateFirstReceiveTimestamp"], 10, 64)
			if m.Attributes["ApproximateReceiveCount"] != "1" || sent == 0 || first < sent ||
				m.Attributes["SenderId"] == "" || m.Attributes["AWSTraceHeader"] == "" {
				t.Errorf("attributes %v", m.Attributes)
			}
		},
		"attributes come only when asked for": func(t *testing.T, w *testbed) {
			q := w.newQueue(nil)
			text := map[string]types.MessageAttributeValue{"kind": {
				DataType:    aws.String("String"),
				StringValue: aws.String("x"),
			}, "raw": {DataType: aws.String("Binary"), BinaryValue: []byte{0, 255}}}
			_, err := w.sqs.SendMessage(t.Context(),
				&sqs.SendMessageInput{QueueUrl: &q, MessageBody: aws.String("x"), MessageAttributes: text})
			w.check(err)
			out, err := w.sqs.ReceiveMessage(t.Context(),
				&sqs.ReceiveMessageInput{QueueUrl: &q, VisibilityTimeout: 1, WaitTimeSeconds: 5})
			w.check(err)
			if len(out.Messages) != 1 || len(out.Messages[0].Attributes)+len(out.Messages[0].MessageAttributes) != 0 {
				t.Errorf("unasked: %+v", out.Messages)
			}
			m := w.one(q, 30)
			if aws.ToString(m.MessageAttributes["kind"].StringValue) != "x" ||
				!slices.Equal(m.MessageAttributes["raw"].BinaryValue, []byte{0, 255}) ||
				aws.ToString(m.MD5OfMessageAttributes) == "" {
				t.Errorf("asked: %+v", m)
			}
		},
		"a message in flight is hidden, and counted": func(_ *testing.T, w *testbed) {
			q := w.newQueue(nil)
			w.send(q, "a")
			w.send(q, "b")
			for left := 1; left >= 0; left-- {
				out, err := w.sqs.ReceiveMessage(w.t.Context(),
					&sqs.ReceiveMessageInput{
						QueueUrl: &q, MaxNumberOfMessages: 1, WaitTimeSeconds: 5,
						VisibilityTimeout: 30,
					})
				w.check(err)
				if len(out.Messages) != 1 {
					w.t.Fatalf("%d messages, want 1", len(out.Messages))
				}
				w.counts(q, left, 2-left)
			}
			w.none(q)
		},
		"it comes back when its visibility ends, to a poll that waits": func(t *testing.T, w *testbed) {
			q := w.newQueue(nil)
			id := w.send(q, "a")
			first := w.one(q, 1)
			again := w.one(q, 30)
			if aws.ToString(again.MessageId) != id ||
				aws.ToString(again.ReceiptHandle) == aws.ToString(first.ReceiptHandle) ||
				again.Attributes["ApproximateReceiveCount"] != "2" {
				t.Errorf("first %v, again %v", first, again)
			}
		},
		"the queue's visibility counts when the receive says none": func(t *testing.T, w *testbed) {
			q := w.newQueue(map[string]string{"VisibilityTimeout": "1"})
			w.send(q, "a")
			w.one(q, 0)
			if m := w.one(q, 30); m.Attributes["ApproximateReceiveCount"] != "2" {
				t.Errorf("attributes %v", m.Attributes)
			}
		},
		"a long poll ends early when a message comes": func(t *testing.T, w *testbed) {
			q := w.newQueue(nil)
			began := time.Now()
			got := make(chan []types.Message, 1)
			go func() {
				defer close(got) // receive may end the goroutine
				got <- w.receive(q, 20, 30)
			}()
			w.send(q, "a")
			if m := <-got; len(m) != 1 || time.Since(began) > 15*time.Second {
				t.Errorf("%d messages after %s", len(m), time.Since(began))
			}
		},
		"a long poll of an empty queue ends with its wait": func(t *testing.T, w *testbed) {
			began := time.Now()
			q := w.newQueue(nil)
			if got := w.receive(q, 1, 30); len(got) > 0 || time.Since(began) < time.Second {
				t.Errorf("%d messages after %s", len(got), time.Since(began))
			}
		},
		"the queue's wait counts when the receive says none": func(t *testing.T, w *testbed) {
			q := w.newQueue(map[string]string{"ReceiveMessageWaitTimeSeconds": "1"})
			began := time.Now()
			if got := w.receive(q, 0, 30); len(got) > 0 || time.Since(began) < time.Second {
				t.Errorf("%d messages after %s", len(got), time.Since(began))
			}
		},
		"a delayed message comes later": func(t *testing.T, w *testbed) {
			q := w.newQueue(nil)
			_, err := w.sqs.SendMessage(t.Context(),
				&sqs.SendMessageInput{QueueUrl: &q, MessageBody: aws.String("a"), DelaySeconds: 1})
			w.check(err)
			w.none(q)
			w.one(q, 30)
		},
		"at most ten at once": func(t *testing.T, w *testbed) {
			q := w.newQueue(nil)
			for i := range 12 {
				w.send(q, strconv.Itoa(i))
			}
			if got := w.receive(q, 5, 30); len(got) == 0 || len(got) > 10 || w.emu != nil && len(got) != 10 {
				t.Errorf("%d messages", len(got))
			}
			_, err := w.sqs.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &q, MaxNumberOfMessages: 11})
			refused(t, err, "InvalidParameterValue", "InvalidParameterValueException")
			one, err := w.sqs.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &q, WaitTimeSeconds: 5})
			w.check(err)
			if len(one.Messages) != 1 {
				t.Errorf("%d messages where none were asked for, want 1", len(one.Messages))
			}
		},
		"bad waits and bodies are refused": func(t *testing.T, w *testbed) {
			q := w.newQueue(map[string]string{"MaximumMessageSize": "2048"})
			_, err := w.sqs.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &q, WaitTimeSeconds: 21})
			refused(t, err, "InvalidParameterValue", "InvalidParameterValueException")
			_, err = w.sqs.SendMessage(t.Context(),
				&sqs.SendMessageInput{QueueUrl: &q, MessageBody: aws.String(strings.Repeat("x", 2049))})
			refused(t, err, "InvalidParameterValue", "InvalidParameterValueException")
			_, err = w.sqs.SendMessage(t.Context(),
				&sqs.SendMessageInput{QueueUrl: &q, MessageBody: aws.String("bell \a")})
			refused(t, err, "InvalidMessageContents")
		},
		"a body of 256 KiB": func(t *testing.T, w *testbed) {
			q := w.newQueue(nil)
			body := content(256 << 10)
			w.send(q, body)
			if m := w.one(q, 30); aws.ToString(m.Body) != body {
				t.Errorf("%d bytes, or others", len(aws.ToString(m.Body)))
			}
		},
	}.run(t)
}

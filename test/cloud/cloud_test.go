package cloud

import (
	"context"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// An upload is told to the queue, and whoever watches is told which object a message was
// about before the message is deleted.
func TestBucket(t *testing.T) {
	ctx := t.Context()
	var deleted []string
	var b *Bucket
	c, err := Emulate(t.TempDir(), func(key string) {
		if drained, err := b.IsDrained(context.WithoutCancel(ctx)); err != nil || drained {
			t.Errorf("told too late: %t, %v", drained, err)
		}
		deleted = append(deleted, key)
	})
	check(t, err)
	defer func() { check(t, c.Close()) }()
	b, err = c.Bucket(ctx, "bucket")
	check(t, err)
	check(t, b.Put(ctx, "images/silent.tar", []byte("x")))
	check(t, b.Notify(ctx))
	check(t, b.Silence(ctx))
	check(t, b.Put(ctx, "images/silenced.tar", []byte("x")))
	check(t, b.Notify(ctx))
	if out, err := c.SQS.ReceiveMessage(ctx,
		&sqs.ReceiveMessageInput{QueueUrl: aws.String(b.Queue), MaxNumberOfMessages: 10}); err != nil ||
		len(out.Messages) != 2 {
		t.Fatalf("%d messages, %v; want the two test events", len(out.Messages), err)
	}
	check(t, b.Purge(ctx))
	drained := func(want bool) {
		t.Helper()
		if is, err := b.IsDrained(ctx); err != nil || is != want {
			t.Fatalf("drained: %t, %v, want %t", is, err, want)
		}
	}
	drained(true)
	check(t, b.Send(ctx, "made up"))
	for _, key := range []string{"images/a b.tar", "images/c+d.tar"} {
		check(t, b.Put(ctx, key, []byte(key)))
	}
	drained(false)
	out, err := c.SQS.ReceiveMessage(ctx,
		&sqs.ReceiveMessageInput{QueueUrl: aws.String(b.Queue), MaxNumberOfMessages: 10})
	check(t, err)
	if len(out.Messages) != 3 || len(deleted) > 0 {
		t.Fatalf("%d messages, deleted %q", len(out.Messages), deleted)
	}
	drained(false)
	_, err = c.SQS.DeleteMessage(ctx,
		&sqs.DeleteMessageInput{QueueUrl: aws.String(b.Queue), ReceiptHandle: out.Messages[0].ReceiptHandle})
	check(t, err)
	var rest []sqstypes.DeleteMessageBatchRequestEntry
	for i, m := range out.Messages[1:] {
		rest = append(rest, sqstypes.DeleteMessageBatchRequestEntry{
			Id:            aws.String(string(rune('a' + i))),
			ReceiptHandle: m.ReceiptHandle,
		})
	}
	_, err = c.SQS.DeleteMessageBatch(ctx, &sqs.DeleteMessageBatchInput{QueueUrl: aws.String(b.Queue), Entries: rest})
	check(t, err)
	drained(true)
	slices.Sort(deleted)
	if !slices.Equal(deleted, []string{"images/a b.tar", "images/c+d.tar"}) {
		t.Errorf("deleted %q", deleted)
	}
}

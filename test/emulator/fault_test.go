package emulator_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"imagemanager.internal/test/emulator"
)

// read gets an object, as far as it comes.
func (w *testbed) read(ctx context.Context, bucket, key string) (string, error) {
	out, err := w.s3.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		return "", err
	}
	defer out.Body.Close()
	text, err := io.ReadAll(out.Body)
	return string(text), err
}

func TestFaultsOfAnswers(t *testing.T) {
	w := emulated(t, emulator.Config{})
	b, text := w.newBucket(), content(100_000)
	w.put(b, "k", text)
	for name, c := range map[string]struct {
		fault emulator.Fault
		check func(t *testing.T, got string, err error)
	}{
		"a status": {emulator.Fault{Status: 503}, func(t *testing.T, _ string, err error) {
			refused(t, err, "SlowDown")
			if status(err) != 503 {
				t.Errorf("status %d", status(err))
			}
		}},
		"a status with a code": {
			emulator.Fault{Status: 403, Code: "InvalidAccessKeyId"},
			func(t *testing.T, _ string, err error) {
				refused(t, err, "InvalidAccessKeyId")
			},
		},
		"a reset before the answer": {emulator.Fault{Reset: true}, func(t *testing.T, _ string, err error) {
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("got %v, want a reset", err)
			}
		}},
		"an end before the answer": {emulator.Fault{Break: true}, func(t *testing.T, _ string, err error) {
			if !errors.Is(err, io.EOF) {
				t.Errorf("got %v, want an end", err)
			}
		}},
		"a lost answer": {emulator.Fault{Lost: true}, func(t *testing.T, _ string, err error) {
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("got %v, want a reset", err)
			}
		}},
		"a body that ends early": {emulator.Fault{After: 5000, Break: true}, func(t *testing.T, got string, err error) {
			if got != text[:5000] || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		}},
		"a body cut by a reset": {emulator.Fault{After: 5000, Reset: true}, func(t *testing.T, got string, err error) {
			if len(got) > 5000 || err == nil { // a reset may overtake bytes
				t.Errorf("%d bytes, %v", len(got), err)
			}
		}},
		"a damaged body": {emulator.Fault{After: 70_000, Corrupt: true}, func(t *testing.T, got string, err error) {
			want := []byte(text)
			want[70_000] ^= 0xff
			if err == nil || got != string(want) { // the SDK compares the checksum at the end
				t.Errorf("%d bytes, %v", len(got), err)
			}
		}},
		"latency": {emulator.Fault{Latency: time.Millisecond}, func(t *testing.T, got string, err error) {
			if err != nil || got != text {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			// always, not once: Go's transport itself tries again where a reused
			// connection ends without an answer
			c.fault.Op = "GetObject"
			w.emu.Fault(c.fault)
			got, err := w.read(t.Context(), b, "k")
			c.check(t, got, err)
			w.emu.Clear()
			if got, err := w.read(t.Context(), b, "k"); err != nil || got != text {
				t.Errorf("the next request: %d bytes, %v", len(got), err)
			}
		})
	}
}

func TestFaultsHang(t *testing.T) {
	w := emulated(t, emulator.Config{})
	b, text := w.newBucket(), content(100_000)
	w.put(b, "k", text)
	t.Run("until the client goes", func(t *testing.T) {
		w.emu.Fault(emulator.Fault{Op: "GetObject", Hang: true, Times: 1})
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := w.read(ctx, b, "k"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("in the middle of a body", func(t *testing.T) {
		w.emu.Fault(emulator.Fault{Op: "GetObject", Hang: true, After: 3000, Times: 1})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		out, err := w.s3.GetObject(ctx, &s3.GetObjectInput{Bucket: &b, Key: aws.String("k")})
		if err != nil {
			t.Fatal(err)
		}
		defer out.Body.Close()
		got := make([]byte, 3000)
		if _, err := io.ReadFull(out.Body, got); err != nil || string(got) != text[:3000] {
			t.Fatalf("%.10q…, %v", got, err)
		}
		time.AfterFunc(50*time.Millisecond, cancel)
		if more, err := io.ReadAll(out.Body); !errors.Is(err, context.Canceled) || len(more) > 0 {
			t.Errorf("%d bytes more, %v", len(more), err)
		}
	})
	t.Run("until Clear", func(t *testing.T) {
		w.emu.Fault(emulator.Fault{Op: "PutObject", Hang: true})
		before := w.emu.Calls("PutObject")
		done := make(chan error)
		go func() { // the answer is an error, or, if Clear came before the fault was met, none
			_, err := w.s3.PutObject(t.Context(),
				&s3.PutObjectInput{Bucket: &b, Key: aws.String("hung"), Body: strings.NewReader("x")})
			done <- err
		}()
		w.until("the put has come", func() bool { return w.emu.Calls("PutObject") > before })
		w.emu.Clear()
		if err := <-done; err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error(err)
		}
		w.put(b, "hung", "x")
	})
}

// until polls for something that another goroutine does soon.
func (w *testbed) until(what string, cond func() bool) {
	w.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 10_000 {
		if cond() {
			return
		}
		<-tick.C
	}
	w.t.Fatalf("not within ten seconds: %s", what)
}

func TestFaultsOfRequests(t *testing.T) {
	w := emulated(t, emulator.Config{})
	b, q := w.newBucket(), w.newQueue(nil)
	t.Run("some pass first, then some are hit", func(t *testing.T) {
		w.emu.Fault(emulator.Fault{Op: "SendMessage", Skip: 1, Times: 2, Status: 500})
		var outcome []int
		for range 4 {
			_, err := w.sqs.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &q, MessageBody: aws.String("x")})
			outcome = append(outcome, status(err))
		}
		if !slices.Equal(outcome, []int{0, 500, 500, 0}) {
			t.Errorf("got %v", outcome)
		}
	})
	t.Run("only one target", func(t *testing.T) {
		w.emu.Fault(emulator.Fault{Op: "GetObject", Target: b + "/bad", Status: 500})
		w.put(b, "good", "x")
		w.put(b, "bad", "x")
		_, err := w.read(t.Context(), b, "bad")
		if _, err2 := w.read(t.Context(), b, "good"); status(err) != 500 || err2 != nil {
			t.Errorf("%v, %v", err, err2)
		}
		w.emu.Clear()
		if _, err := w.read(t.Context(), b, "bad"); err != nil {
			t.Errorf("after Clear: %v", err)
		}
	})
	t.Run("a typed error of SQS", func(t *testing.T) {
		w.emu.Fault(emulator.Fault{Op: "ReceiveMessage", Status: 400, Code: "QueueDoesNotExist", Times: 1})
		_, err := w.sqs.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &q})
		failed[*types.QueueDoesNotExist](t, err)
	})
	t.Run("a refused put stores nothing, a lost answer's does", func(t *testing.T) {
		for fault, want := range map[emulator.Fault]string{{Status: 500}: "", {Lost: true}: "x", {Reset: true}: ""} {
			fault.Op, fault.Times = "PutObject", 1
			w.emu.Fault(fault)
			_, err := w.s3.PutObject(t.Context(),
				&s3.PutObjectInput{Bucket: &b, Key: aws.String("maybe"), Body: strings.NewReader("x")})
			got, _ := w.read(t.Context(), b, "maybe")
			if err == nil || got != want {
				t.Errorf("%+v: %v, then %q, want %q", fault, err, got, want)
			}
			_, err = w.s3.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &b, Key: aws.String("maybe")})
			w.in(t).check(err)
		}
	})
	t.Run("calls are counted, with those that fail", func(t *testing.T) {
		before := w.emu.Calls("GetQueueAttributes")
		w.emu.Fault(emulator.Fault{Op: "GetQueueAttributes", Status: 500, Times: 1})
		_, _ = w.sqs.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &q})
		w.attributes(q)
		if n := w.emu.Calls("GetQueueAttributes") - before; n != 2 {
			t.Errorf("%d calls, want 2", n)
		}
	})
}

func TestFaultsOfQueues(t *testing.T) {
	w := emulated(t, emulator.Config{})
	t.Run("entries of a batch", func(t *testing.T) {
		w := w.in(t)
		q := w.newQueue(nil)
		var entries []types.DeleteMessageBatchRequestEntry
		for _, id := range []string{"0", "1", "2"} {
			w.send(q, id)
			entries = append(entries,
				types.DeleteMessageBatchRequestEntry{Id: aws.String(id), ReceiptHandle: w.one(q, 300).ReceiptHandle})
		}
		w.emu.Fault(emulator.Fault{Op: "DeleteMessageBatch", Entries: 2, Status: 500, Code: "InternalError", Times: 1})
		out, err := w.sqs.DeleteMessageBatch(t.Context(), &sqs.DeleteMessageBatchInput{QueueUrl: &q, Entries: entries})
		w.check(err)
		if len(out.Failed) != 2 || out.Failed[0].SenderFault || *out.Failed[0].Code != "InternalError" ||
			len(out.Successful) != 1 || *out.Successful[0].Id != "2" {
			t.Errorf("%+v", out)
		}
		w.counts(q, 0, 2)
		w.emu.Fault(emulator.Fault{
			Op: "DeleteMessageBatch", Entries: -1, Status: 400, Code: "ReceiptHandleIsInvalid",
			Times: 1,
		})
		out, err = w.sqs.DeleteMessageBatch(t.Context(), &sqs.DeleteMessageBatchInput{QueueUrl: &q, Entries: entries})
		w.check(err)
		if len(out.Failed) != 3 || !out.Failed[0].SenderFault {
			t.Errorf("%+v", out)
		}
	})
	t.Run("delivered again, with another handle", func(t *testing.T) {
		w := w.in(t)
		q := w.newQueue(nil)
		w.send(q, "a")
		w.emu.Fault(emulator.Fault{Op: "ReceiveMessage", Redeliver: true, Times: 1})
		first, second := w.one(q, 300), w.one(q, 300)
		if *first.MessageId != *second.MessageId || *first.ReceiptHandle == *second.ReceiptHandle {
			t.Errorf("%v, %v", first, second)
		}
		w.none(q)
	})
	t.Run("the newest first", func(t *testing.T) {
		w := w.in(t)
		q := w.newQueue(nil)
		for _, body := range []string{"a", "b", "c"} {
			w.send(q, body)
		}
		w.emu.Fault(emulator.Fault{Op: "ReceiveMessage", Reverse: true, Times: 1})
		if got := w.receive(q, 0, 300); len(got) != 3 || *got[0].Body != "c" || *got[2].Body != "a" {
			t.Errorf("%v", got)
		}
	})
	t.Run("leases lost", func(t *testing.T) {
		w := w.in(t)
		q := w.newQueue(nil)
		w.send(q, "a")
		m := w.one(q, 300)
		if n := w.emu.Expire(q); n != 1 {
			t.Errorf("%d leases, want 1", n)
		}
		if again := w.one(q, 300); *again.MessageId != *m.MessageId {
			t.Errorf("got %v", again)
		}
		w.emu.Fault(emulator.Fault{Op: "ChangeMessageVisibility", Times: 1, Status: 400, Code: "MessageNotInflight"})
		failed[*types.MessageNotInflight](t, w.extend(q, m.ReceiptHandle, 30))
	})
	t.Run("the dead-letter queue fails", func(t *testing.T) {
		w := w.in(t)
		q, dead := w.redriven(1)
		w.emu.Fault(emulator.Fault{Op: "Redrive", Target: dead[strings.LastIndex(dead, "/")+1:], Status: 500, Times: 1})
		w.send(q, "a")
		w.one(q, 300)
		w.emu.Expire(q)
		if m := w.one(q, 300); m.Attributes["ApproximateReceiveCount"] != "2" {
			t.Errorf("%v", m.Attributes)
		}
		w.emu.Expire(q)
		w.none(q)
		w.one(dead, 300)
	})
}

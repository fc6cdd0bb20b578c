package pipeline

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/rs/zerolog"

	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/pipeline/health"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/queue"
	"imagemanager.internal/internal/store"
)

// objects is a bucket: the eTags by key, or why it does not answer.
type objects struct {
	etags map[string]string
	err   error
}

func (o objects) HeadObject(
	_ context.Context, in *s3.HeadObjectInput, _ ...func(*s3.Options),
) (*s3.HeadObjectOutput, error) {
	return &s3.HeadObjectOutput{ETag: aws.String(o.etags[*in.Key]), ContentLength: aws.Int64(7)}, o.err
}

func (o objects) ListObjectsV2(
	context.Context, *s3.ListObjectsV2Input, ...func(*s3.Options),
) (*s3.ListObjectsV2Output, error) {
	return &s3.ListObjectsV2Output{Name: aws.String("b")}, o.err
}

// free drops the jobs that enqueue made: the images wait in the journal alone.
func free(p *Pipeline, jobs []*Job) {
	for _, job := range jobs {
		delete(p.jobs.byImage, job.Image.ID)
	}
}

// Of two readings of a key it is the one that holds what the event names. An event that
// names neither version nor eTag is about what is there now.
func TestIdentify(t *testing.T) {
	p := newPipeline(t)
	p.bucket = download.NewBucket(objects{etags: map[string]string{"images/a+b": `"plus"`, "images/a b": `"blank"`}},
		"b", "images/")
	for _, c := range []struct{ etag, key, want string }{
		{"plus", "images/a+b", "plus"}, {"blank", "images/a b", "blank"}, {"", "images/a+b", "plus"},
	} {
		got, err := identify(t.Context(), p.bucket, "images/",
			queue.Object{Bucket: "b", Key: "images/a+b", AltKey: "images/a b", ETag: c.etag})
		if err != nil || got.Key != c.key || got.ETag != c.want {
			t.Errorf("eTag %q: %+v, %v", c.etag, got, err)
		}
	}
}

// hand lets intake accept an object of a message that nobody else knows.
func hand(t *testing.T, p *Pipeline, o queue.Object) {
	t.Helper()
	p.messages.queue = queue.New(&roughQueue{t: t}, queue.Config{URL: "http://127.0.0.1/q"})
	p.messages.permits <- struct{}{}
	m := &queue.Message{ID: "m", ReceiveCount: 1, Notification: queue.Notification{Objects: []queue.Object{o}}}
	p.accept(t.Context(), t.Context(), m, make(chan *Job))
	p.messages.watchers.Wait()
}

// An S3 that does not answer when an event is to be understood stops intake, as one that
// does not at a download.
func TestOutageAtIntake(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: errors.New("refused")}
	p := newPipelineOn(t, zerolog.Nop(), download.NewBucket(objects{err: refused}, "b", "images/"))
	hand(t, p, queue.Object{Bucket: "b", Key: "images/x"})
	if p.health.AcceptingWork() {
		t.Error("intake goes on")
	}
	if images, err := p.store.Images(t.Context()); err != nil || len(images) != 0 {
		t.Errorf("an image was made of what nobody knows: %+v, %v", images, err)
	}
}

// An image of ours that came from a listing since the start proves bucket and prefix.
func TestListingProvesOurs(t *testing.T) {
	p := newPipeline(t)
	enqueue(t, p, 1)
	hand(t, p, queue.Object{Bucket: "other", Key: "images/x", ETag: "e"})
	if err := p.health.Reasons().Err(); err != nil {
		t.Error(err)
	}
}

// The sweep takes up images that were tried and that nobody has; those that were never
// tried are the backlog's, one at a time.
func TestSweep(t *testing.T) {
	p := newPipeline(t)
	free(p, enqueue(t, p, 2))
	fail(t, p, 2, errors.New("once"))
	if err := p.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(p.jobs.retryAt) != 1 || p.jobs.retryAt[2].IsZero() {
		t.Errorf("waiting: %v, want the second image alone", p.jobs.retryAt)
	}
}

// Trickle stops with the image in hand when intake pauses.
func TestTrickleHeedsPauses(t *testing.T) {
	p := newPipeline(t)
	free(p, enqueue(t, p, 3))
	out, sent := make(chan *Job), 0
	var wg sync.WaitGroup
	wg.Go(func() {
		for job := range out {
			sent++
			p.health.Capacity = func() health.Reasons { return health.Reasons{health.DiskLow: provision.ErrDiskLow} }
			p.finish(t.Context(), job, done)
		}
	})
	p.drainBacklogOnce(t.Context(), t.Context(), out)
	close(out)
	wg.Wait()
	if sent != 1 {
		t.Errorf("%d images were sent on, want 1", sent)
	}
}

// A stage that a stop ended and that is slow to come back gets no verdict, like any other
// that a stop ended.
func TestStuckAtAStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipeline(t)
		p.cfg.MaxAttempts = 1
		back := make(chan struct{})
		fake(p, map[store.Stage]*gauge{}, func(context.Context, *provision.Task, store.Stage) error {
			<-back
			return nil
		})
		ctx, stop := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, stop)
		var wg sync.WaitGroup
		for range chain(ctx, p, &wg, enqueue(t, p, 1)) {
			t.Error("it passed")
		}
		wg.Wait()
		img, err := p.store.Image(t.Context(), 1)
		if err != nil || img.State != store.StatePending || img.Failures != 0 || img.Running {
			t.Errorf("%+v, %v", img.Progress, err)
		}
		close(back)
		synctest.Wait()
	})
}

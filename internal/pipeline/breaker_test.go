package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/queue"
	"imagemanager.internal/internal/store"
)

// fail lets a download fail, and returns the image after it.
func fail(t *testing.T, p *Pipeline, image int64, err error) store.Image {
	t.Helper()
	img, e := p.store.Image(t.Context(), image)
	if e != nil {
		t.Fatal(e)
	}
	job := &Job{Task: provision.Task{Image: img}}
	if e := p.begin(t.Context(), job, store.StageDownload); e != nil {
		t.Fatal(e)
	}
	p.recordFailure(t.Context(), job, p.judge(&job.Task, err))
	return job.Image
}

// What may be an outage is held against nobody while nothing succeeds, for one object as
// for many. What fails while others succeed is the image's own.
func TestOutage(t *testing.T) {
	p := newPipeline(t)
	enqueue(t, p, 3)
	unavailable := fmt.Errorf("get: %w", syscall.EMFILE)
	for range 20 {
		if img := fail(t, p, 1, unavailable); img.Failures != 0 || img.State != store.StatePending {
			t.Fatalf("counted although nothing succeeds: %+v", img.Progress)
		}
	}
	if p.Ready() == nil {
		t.Error("20 failures in a row, and all is said to be well")
	}
	if _, careful := p.health.oneByOne(); careful {
		t.Error("one image alone holds up the others")
	}
	fail(t, p, 2, unavailable)
	if pause, careful := p.health.oneByOne(); !careful || pause > longestTrial {
		t.Errorf("two images fail streakLength: careful %t, pause %s", careful, pause)
	}
	for i := range p.cfg.MaxAttempts {
		if !p.health.breaker.succeeded(store.StageDownload, 3) && i == 0 {
			t.Error("a success does not end it")
		}
		if p.Ready() != nil {
			t.Error(p.Ready())
		}
		img := fail(t, p, 1, unavailable)
		if want := i + 1; img.Failures != want {
			t.Fatalf("failure %d beside successes: %+v", want, img.Progress)
		}
	}
}

// A denied object counts at once, as long as not many are denied: others need not succeed
// to prove it.
func TestDeniedObjects(t *testing.T) {
	p := newPipeline(t)
	enqueue(t, p, streakLength+1)
	denied := fmt.Errorf("%w: get", download.ErrDenied)
	for id := int64(1); id <= streakLength+1; id++ {
		img := fail(t, p, id, denied)
		if counted, want := img.Failures == 1, id < streakLength; counted != want {
			t.Errorf("image %d denied: counted %t, want %t", id, counted, want)
		}
	}
	if err := p.Ready(); !errors.Is(err, download.ErrDenied) {
		t.Error(err)
	}
}

// Failures of images that have ended, and devices that somebody holds, are no outage.
func TestNoOutage(t *testing.T) {
	p := newPipeline(t)
	enqueue(t, p, 2)
	denied := fmt.Errorf("%w: get", download.ErrDenied)
	var img store.Image
	for range p.cfg.MaxAttempts {
		img = fail(t, p, 1, denied)
	}
	if p.Ready() == nil || img.State != store.StateDead {
		t.Fatalf("%v, %+v", p.Ready(), img.Progress)
	}
	job := &Job{Task: provision.Task{Image: img}, ended: make(chan struct{})}
	p.finish(t.Context(), job, outcome{verdict: dead})
	if err := p.Ready(); err != nil {
		t.Errorf("the one image that failed has ended: %v", err)
	}
	for range 10 {
		if img := fail(t, p, 2, devmapper.ErrBusy); img.Failures != 0 {
			t.Fatalf("a device that somebody holds: %+v", img.Progress)
		}
	}
	if err := p.Ready(); err != nil {
		t.Errorf("one device that somebody holds: %v", err)
	}
}

// While the bucket itself does not answer nothing is admitted; it is looked at again by
// itself, less and less often.
func TestOutageOfTheBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipeline(t)
		var well atomic.Bool
		var looks atomic.Int64
		p.health.probe = func(context.Context) error {
			looks.Add(1)
			if well.Load() {
				return nil
			}
			return download.ErrNoBucket
		}
		if err := p.health.lookAtBucket(t.Context()); err == nil || p.health.acceptingWork() || p.Ready() == nil {
			t.Fatal("work is taken although the bucket does not answer")
		}
		ctx, cancel := context.WithCancel(t.Context())
		go p.health.watch(ctx)
		wait(t.Context(), 10*time.Minute)
		if n := looks.Load(); n < 10 || n > 100 {
			t.Errorf("%d looks in ten minutes", n)
		}
		well.Store(true)
		wait(t.Context(), 2*longestTrial)
		if !p.health.acceptingWork() || p.Ready() != nil {
			t.Error(p.Ready())
		}
		cancel()
		synctest.Wait()
	})
}

// A pool whose parts do not belong together any more takes nothing: the next start would
// refuse it, with all that was put into it meanwhile.
func TestPoolDoesNotProveItself(t *testing.T) {
	p := newPipeline(t)
	p.health.poolProved(fmt.Errorf("%w: the data are another's", devmapper.ErrForeign))
	if err := p.health.checkCapacity(); !errors.Is(err, devmapper.ErrForeign) {
		t.Errorf("%v", err)
	}
	for _, passing := range []error{nil, devmapper.ErrReadOnly} { // has a condition of its own
		p.health.poolProved(passing)
		if err := p.health.poolProof(); err != nil {
			t.Errorf("after %v: %v", passing, err)
		}
	}
}

// A missing tool or right is the machine's fault, whatever the image.
func TestMachineLacks(t *testing.T) {
	for _, err := range []error{
		devmapper.ErrUnavailable, &exec.Error{Name: "mke2fs", Err: exec.ErrNotFound}, syscall.EPERM, syscall.ENOSYS,
		fmt.Errorf("fork: %w", syscall.ENOMEM),
	} {
		if v, class := classify(err); v != outage || class != classMachine {
			t.Errorf("%v: %s %s", err, v, class)
		}
	}
}

// An object is believed to be gone, or replaced, only by the second look that says so,
// right after the first.
func TestDoubt(t *testing.T) {
	for said, err := range map[store.State]error{
		store.StateVanished:   download.ErrGone,
		store.StateSuperseded: download.ErrChanged,
	} {
		p := newPipeline(t)
		enqueue(t, p, 1)
		for i, c := range []struct {
			err  error
			want store.State
		}{
			{err, store.StatePending},
			{download.ErrCorrupt, store.StatePending},
			{err, store.StatePending},
			{err, said},
		} {
			if img := fail(t, p, 1, c.err); img.State != c.want {
				t.Errorf("%s, look %d: %s, want %s", said, i+1, img.State, c.want)
			}
		}
	}
}

// While every message is about something else they go back to the queue, at ever longer
// intervals; once one was ours the rest are what they are.
func TestForeignUntilProved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipeline(t)
		held := func() int { return len(p.messages.permits) }
		o := queue.Object{Bucket: "other", Key: "images/x.tar"}
		all, first := p.health.noteForeign(o)
		if !all || p.Ready() == nil {
			t.Fatal("the first foreign message is taken for what it is")
		}
		for range 30 {
			if !p.health.awaitTrial(t.Context(), held) {
				t.Fatal("messages are not taken one by one")
			}
			p.health.noteForeign(o)
		}
		if _, away := p.health.noteForeign(o); away <= first || away > longestForeign {
			t.Errorf("the last is away for %s", away)
		}
		p.health.noteOurs()
		all, _ = p.health.noteForeign(o)
		if all || p.Ready() != nil || p.health.awaitTrial(t.Context(), held) {
			t.Error("one was ours, and foreign ones are held up still", p.Ready())
		}
	})
}

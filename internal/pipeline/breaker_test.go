package pipeline

import (
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/pipeline/health"
	"imagemanager.internal/internal/provision"
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
	if p.health.Reasons().Err() == nil {
		t.Error("20 failures in a row, and all is said to be well")
	}
	if _, careful := p.health.OneByOne(); careful {
		t.Error("one image alone holds up the others")
	}
	fail(t, p, 2, unavailable)
	if pause, careful := p.health.OneByOne(); !careful || pause > 15*time.Second {
		t.Errorf("two images fail alike: careful %t, pause %s", careful, pause)
	}
	for i := range p.cfg.MaxAttempts {
		if !p.health.Breaker.Succeeded(store.StageDownload, 3) && i == 0 {
			t.Error("a success does not end it")
		}
		if p.health.Reasons().Err() != nil {
			t.Error(p.health.Reasons().Err())
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
	enqueue(t, p, health.StreakLength+1)
	denied := fmt.Errorf("%w: get", download.ErrDenied)
	for id := int64(1); id <= health.StreakLength+1; id++ {
		img := fail(t, p, id, denied)
		if counted, want := img.Failures == 1, id < health.StreakLength; counted != want {
			t.Errorf("image %d denied: counted %t, want %t", id, counted, want)
		}
	}
	if err := p.health.Reasons().Err(); !errors.Is(err, download.ErrDenied) {
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
	if p.health.Reasons().Err() == nil || img.State != store.StateDead {
		t.Fatalf("%v, %+v", p.health.Reasons().Err(), img.Progress)
	}
	job := &Job{Task: provision.Task{Image: img}, ended: make(chan struct{})}
	p.finish(t.Context(), job, outcome{verdict: dead})
	if err := p.health.Reasons().Err(); err != nil {
		t.Errorf("the one image that failed has ended: %v", err)
	}
	for range 10 {
		if img := fail(t, p, 2, devmapper.ErrBusy); img.Failures != 0 {
			t.Fatalf("a device that somebody holds: %+v", img.Progress)
		}
	}
	if err := p.health.Reasons().Err(); err != nil {
		t.Errorf("one device that somebody holds: %v", err)
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

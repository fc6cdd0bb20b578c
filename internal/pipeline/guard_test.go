package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/store"
)

// A panic in a stage fails that attempt, with its stack, and nothing else.
func TestPanicInAStage(t *testing.T) {
	var log bytes.Buffer
	p := newLoggingPipeline(t, zerolog.New(zerolog.SyncWriter(&log)))
	fake(p, map[store.Stage]*gauge{}, func(_ context.Context, job *provision.Task, st store.Stage) error {
		if st == store.StageUnpack && job.Image.ID == 1 {
			var nobody *Job
			nobody.atBegin++ // panics
		}
		return nil
	})
	for i := range p.table {
		p.table[i].check = func(context.Context, *provision.Task) error { return nil }
	}
	jobs := enqueue(t, p, 3)
	var wg sync.WaitGroup
	passed := 0
	for job := range chain(t.Context(), p, &wg, jobs) {
		passed++
		p.finish(t.Context(), job, done)
	}
	wg.Wait()
	img, err := p.store.Image(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if passed != 2 || img.Failures != 1 || !strings.Contains(img.Reason, "nil pointer") ||
		!strings.Contains(log.String(), "guard_test.go") {
		t.Errorf("%d of the others passed; %+v", passed, img.Progress)
	}
}

// A stage that does not come back, not even when its time is over, keeps neither its
// worker nor its message: the next job goes through. Its image stays in hand until it
// comes back, and is rolled back then.
func TestStuckStage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipeline(t)
		back := make(chan struct{})
		var mu sync.Mutex
		var undone []int64
		fake(p, map[store.Stage]*gauge{}, func(_ context.Context, job *provision.Task, st store.Stage) error {
			if st == store.StageUnpack && job.Image.ID <= 2 {
				<-back
				return errors.New("late")
			}
			return nil
		})
		for i := range p.table {
			p.table[i].check = func(context.Context, *provision.Task) error { return nil }
			p.table[i].undo = func(_ context.Context, job *provision.Task) error {
				mu.Lock()
				defer mu.Unlock()
				undone = append(undone, job.Image.ID)
				return nil
			}
		}
		jobs := enqueue(t, p, 3)
		var wg sync.WaitGroup
		began := time.Now()
		for job := range chain(t.Context(), p, &wg, jobs) {
			if job.Image.ID != 3 {
				t.Errorf("image %d passed", job.Image.ID)
			}
			p.finish(t.Context(), job, done)
		}
		wg.Wait()
		if took := time.Since(began); took > p.cfg.UnpackTimeout+2*returnTimeout {
			t.Errorf("the next image waited %s", took)
		}
		img, err := p.store.Image(t.Context(), 1)
		if err != nil || img.Failures != 1 || img.Running {
			t.Errorf("%+v %v", img.Progress, err)
		}
		for _, job := range jobs[:2] {
			<-job.ended // else whoever feeds images one by one would wait with it
		}
		if job, _ := p.jobs.take(1, nil); job != nil {
			t.Error("its image is free although the stage is still at it")
		}
		mu.Lock()
		defer mu.Unlock()
		if len(undone) > 0 {
			t.Errorf("rolled back under the stage's hands: %v", undone)
		}
		mu.Unlock()
		close(back)
		synctest.Wait()
		mu.Lock()
		if len(undone) != 2 || len(p.jobs.byImage) != 0 || p.jobs.retryAt[1].IsZero() {
			t.Errorf("after it came back: undone %v, %d jobs, waiting %v", undone, len(p.jobs.byImage), p.jobs.retryAt)
		}
	})
}

// That a result cannot be looked at is no proof that it is gone: nothing is made again
// for it.
func TestLookingIsNoLoss(t *testing.T) {
	for name, c := range map[string]struct {
		err      error
		reopened bool
	}{"cannot be looked at": {syscall.EIO, false}, "is gone": {provision.ErrResultLost, true}} {
		p := newPipeline(t)
		fake(p, map[store.Stage]*gauge{}, func(context.Context, *provision.Task, store.Stage) error { return nil })
		job := enqueue(t, p, 1)[0]
		job.Image.Stage = store.StageUnpack
		p.table[0].check = func(context.Context, *provision.Task) error { return fmt.Errorf("stat: %w", c.err) }
		if (p.step(t.Context(), p.table[0], job) == goesOn) != c.reopened {
			t.Errorf("%s: goes on %t", name, !c.reopened)
		}
		events, err := p.store.History(t.Context(), job.Image.ID)
		if err != nil {
			t.Fatal(err)
		}
		if reopened := slices.ContainsFunc(events,
			func(e store.Event) bool { return e.Kind == store.EventReopened }); reopened != c.reopened {
			t.Errorf("%s: reopened %t, want %t", name, reopened, c.reopened)
		}
	}
}

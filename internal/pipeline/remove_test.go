package pipeline

import (
	"context"
	"errors"
	"sync"
	"testing"

	"imagemanager.internal/internal/store"
)

// A job that has found an active image no longer whole, because an operator is removing
// it, neither makes it again nor touches its devices; and the message that brought it
// finds the removed image and is done.
func TestRemovedUnderAJob(t *testing.T) {
	p := newPipeline(t)
	fake(p, map[store.Stage]*gauge{}, func(context.Context, *Job, store.Stage) error { return nil })
	img := enqueue(t, p, 1)[0].image
	for i := range p.table {
		p.table[i].holds = func(context.Context, *Job) error { return nil }
	}
	var wg sync.WaitGroup
	for job := range chain(t.Context(), p, &wg, []*Job{p.jobs[img.ID]}) {
		img = job.image
		p.finish(t.Context(), job, done)
	}
	wg.Wait()
	if img.State != store.StateActive {
		t.Fatalf("the image is %s", img.State)
	}
	for i := range p.table {
		job, _ := p.take(img.ID, nil)
		job.image = img // as it was before the removal
		if i == 0 {
			if _, err := p.Store.Remove(t.Context(), store.Attempt{Image: img.ID, N: img.Attempt},
				"by an operator"); err != nil {
				t.Fatal(err)
			}
		}
		st := p.table[i]
		st.holds = func(context.Context, *Job) error { return errLost }
		st.undo = func(context.Context, *Job) error { t.Errorf("%s was rolled back", st.name); return nil }
		if p.step(t.Context(), st, job) {
			t.Errorf("%s was handed on", st.name)
		}
		if _, waits := p.parked[img.ID]; !waits {
			t.Errorf("%s: the job did not end with a retry", st.name)
		}
	}
	now, err := p.Store.Image(t.Context(), img.ID)
	if err != nil || now.State != store.StateRemoved || now.Running {
		t.Errorf("the image is %+v, %v", now.Progress, err)
	}
	if o, settled := p.settled(t.Context(), &Job{image: now}); !settled || o != done {
		t.Errorf("a message about it: %+v, settled %t", o, settled)
	}
}

// An image that goes on, or has snapshots that nobody allowed to be removed, stays, and
// the error says what to do.
func TestKept(t *testing.T) {
	p := newPipeline(t)
	img := enqueue(t, p, 1)[0].image
	if _, err := p.Store.Begin(t.Context(), img.ID, store.StageDownload); err != nil {
		t.Fatal(err)
	}
	if _, err := p.RemoveImage(t.Context(), img.ID, true); !errors.Is(err, errKept) {
		t.Errorf("an image that is worked on: %v, want errKept", err)
	}
	if _, err := p.RemoveImage(t.Context(), img.ID+1, true); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("no image: %v, want ErrNotFound", err)
	}
	if events, err := p.Store.History(t.Context(), img.ID); err != nil || len(events) != 2 {
		t.Errorf("events: %+v, %v", events, err)
	}
}

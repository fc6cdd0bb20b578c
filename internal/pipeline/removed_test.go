package pipeline

import (
	"context"
	"sync"
	"testing"

	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/store"
)

// A job that has found an active image no longer whole, because an operator is removing
// it, neither makes it again nor touches its devices; and the message that brought it
// finds the removed image and is done.
func TestRemovedUnderAJob(t *testing.T) {
	p := newPipeline(t)
	fake(p, map[store.Stage]*gauge{}, func(context.Context, *provision.Task, store.Stage) error { return nil })
	img := enqueue(t, p, 1)[0].Image
	for i := range p.table {
		p.table[i].check = func(context.Context, *provision.Task) error { return nil }
	}
	var wg sync.WaitGroup
	for job := range chain(t.Context(), p, &wg, []*Job{p.jobs.byImage[img.ID]}) {
		img = job.Image
		p.finish(t.Context(), job, done)
	}
	wg.Wait()
	if img.State != store.StateActive {
		t.Fatalf("the image is %s", img.State)
	}
	for i := range p.table {
		job, _ := p.jobs.take(img.ID, nil)
		job.Image = img // as it was before the removal
		if i == 0 {
			if _, err := p.store.Remove(t.Context(), store.Attempt{Image: img.ID, N: img.Attempt},
				"by an operator"); err != nil {
				t.Fatal(err)
			}
		}
		st := p.table[i]
		st.check = func(context.Context, *provision.Task) error { return provision.ErrResultLost }
		st.undo = func(context.Context, *provision.Task) error { t.Errorf("%s was rolled back", st.name); return nil }
		o := p.step(t.Context(), st, job)
		if o == goesOn {
			t.Errorf("%s was handed on", st.name)
		}
		p.finish(t.Context(), job, o)
		if _, waits := p.jobs.retryAt[img.ID]; !waits {
			t.Errorf("%s: the job did not end with a retry", st.name)
		}
	}
	now, err := p.store.Image(t.Context(), img.ID)
	if err != nil || now.State != store.StateRemoved || now.Running {
		t.Errorf("the image is %+v, %v", now.Progress, err)
	}
	if o, settled := p.answerFromJournal(t.Context(), &Job{Task: provision.Task{Image: now}}); !settled || o != done {
		t.Errorf("a message about it: %+v, settled %t", o, settled)
	}
}

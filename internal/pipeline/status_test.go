package pipeline

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/store"
)

// Two images meet a stage with one worker: one is at work there, the other has its own
// stage done and is blocked. Another waits, and one is given up.
func TestStatusOfJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipeline(t)
		p.table = p.table[:2]
		p.table[0].workers, p.table[1].workers = 1, 1
		release := make(chan struct{})
		fake(p, map[store.Stage]*gauge{}, func(_ context.Context, _ *provision.Task, st store.Stage) error {
			if st == store.StageUnpack {
				<-release
			}
			return nil
		})
		images := enqueue(t, p, 4)
		stuckJob := p.jobs.replace(images[3], images[3].Image)
		p.jobs.markStuck(stuckJob)
		in := make(chan *Job)
		var running sync.WaitGroup
		out := p.start(t.Context(), &running, p.table[1], p.start(t.Context(), &running, p.table[0], in))
		began := time.Now()
		in <- images[0]
		in <- images[1]
		synctest.Wait()
		s := p.Status(t.Context())
		if len(s.Jobs) != 4 {
			t.Fatalf("%+v", s.Jobs)
		}
		for i, want := range []JobStatus{
			{Stage: store.StageUnpack, State: jobWorking, Attempt: 2, Key: "images/0.tar", Since: began},
			{Stage: store.StageDownload, State: jobBlocked, Attempt: 1, Key: "images/1.tar", Since: began},
			{State: jobWaiting},
			{State: jobStuck},
		} {
			have := s.Jobs[i]
			want.Image = images[i].Image.ID
			want.Since = have.Since
			if i < 2 {
				want.Since = began
			}
			if have != want {
				t.Errorf("job %d: %+v, want %+v", i, have, want)
			}
		}
		want := []StageStatus{{store.StageDownload, 1, 0, 1}, {store.StageUnpack, 1, 1, 0}}
		if !slices.Equal(s.Stages, want) {
			t.Errorf("%+v, want %+v", s.Stages, want)
		}
		close(release)
		close(in)
		for range out {
		}
		running.Wait()
	})
}

// The journal's part is read, and the rest is at hand.
func TestStatusOfTheRest(t *testing.T) {
	p := newPipeline(t)
	enqueue(t, p, 3)
	p.reconciled.ended(time.Now(), devmapper.ErrBusy)
	s := p.Status(t.Context())
	if s.Images[store.StatePending] != 3 || len(s.Images) != len(store.States()) {
		t.Errorf("%v", s.Images)
	}
	if s.Quarantined == nil || *s.Quarantined != 0 || s.Queue.Permits != cap(p.messages.permits) || s.Pool != nil {
		t.Errorf("%+v", s)
	}
	if s.Reconcile.Error != devmapper.ErrBusy.Error() {
		t.Errorf("%+v", s.Reconcile)
	}
	if err := p.store.Close(); err != nil {
		t.Fatal(err)
	}
	if s := p.Status(t.Context()); s.Images != nil || s.Quarantined != nil || len(s.Jobs) != 3 {
		t.Errorf("without the journal: %+v", s)
	}
}

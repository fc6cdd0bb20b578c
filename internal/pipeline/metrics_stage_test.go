package pipeline

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/store"
)

// Every attempt is timed by how it ended, and every job counts once.
func TestAttemptsAreTimedByOutcome(t *testing.T) {
	p := newPipeline(t)
	reg := prometheus.NewRegistry()
	p.metrics = NewMetrics(reg, p.store)
	p.metrics.describe(p.cfg, p.table)
	work, stop := context.WithCancel(t.Context())
	fake(p, map[store.Stage]*gauge{}, func(_ context.Context, job *provision.Task, st store.Stage) error {
		switch {
		case job.Image.Key == "images/1.tar" && st == store.StageUnpack:
			return errors.New("a failure")
		case job.Image.Key == "images/2.tar" && st == store.StageActivate:
			stop()
			return errors.New("stopped")
		}
		return nil
	})
	for _, job := range enqueue(t, p, 3) {
		var wg sync.WaitGroup
		for job := range chain(work, p, &wg, []*Job{job}) {
			p.finish(work, job, done)
		}
		wg.Wait()
	}
	got := series(t, reg)
	maps.DeleteFunc(got, func(name string, _ float64) bool {
		return !strings.Contains(name, "_duration") && !strings.Contains(name, "_jobs") &&
			!strings.Contains(name, "_stage_wait") && !strings.Contains(name, "_capacity")
	})
	want := map[string]float64{
		"stage_duration_seconds done download": 3, "stage_duration_seconds done unpack": 2,
		"stage_duration_seconds failed unpack": 1, "stage_duration_seconds done activate": 1,
		"stage_duration_seconds undone activate": 1,
		"stage_wait_seconds download":            3, "stage_wait_seconds unpack": 2, "stage_wait_seconds activate": 1,
		"stage_capacity download": 5, "stage_capacity unpack": 2, "stage_capacity activate": 1,
		"jobs_total done": 1, "jobs_total retry": 2,
	}
	for name, n := range want {
		if got["imagemanager_"+name] != n {
			t.Errorf("%s is %g, want %g", name, got["imagemanager_"+name], n)
		}
		delete(got, "imagemanager_"+name)
	}
	if len(got) > 0 {
		t.Errorf("others: %v", got)
	}
}

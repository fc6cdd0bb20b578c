package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/store"
)

// Whatever a failure comes to, its counter was there before it: with 0.
func TestCountersBeforeTheyCount(t *testing.T) {
	m := NewMetrics(prometheus.NewRegistry(), nil)
	before := testutil.CollectAndCount(m.stage.failures) + testutil.CollectAndCount(m.attacks)
	if before == 0 {
		t.Fatal("no counters")
	}
	p := newPipeline(t)
	errs := []error{errors.New("never seen")}
	for _, c := range classes {
		errs = append(errs, fmt.Errorf("wrapped: %w", c.target))
	}
	for _, r := range archive.Rules() {
		errs = append(errs, &archive.Rejection{Reason: r.Reason, Violation: r.Violation})
	}
	for _, st := range []store.Stage{store.StageDownload, store.StageUnpack, store.StageActivate} {
		for _, err := range errs {
			var refused *archive.Rejection
			if errors.As(err, &refused) && st != store.StageUnpack || !comesFrom(st, errors.Unwrap(err)) {
				continue
			}
			for failures := range p.cfg.MaxAttempts {
				job := &Job{Task: provision.Task{Attempt: store.Attempt{Stage: st}}}
				job.Image.Failures = failures
				j := p.judge(&job.Task, err)
				m.stage.failure(st, j)
				if j.verdict == violation {
					m.violation(j.class)
				}
			}
		}
	}
	if after := testutil.CollectAndCount(m.stage.failures) + testutil.CollectAndCount(m.attacks); after != before {
		t.Errorf("%d series, %d of them only once they counted", after, after-before)
	}
}

// The log says when a message cannot be held any longer: its images may take too long.
func TestCappedMessageIsLogged(t *testing.T) {
	var log bytes.Buffer
	p := newLoggingPipeline(t, zerolog.New(&log))
	p.metrics.Queue().Capped("m1", time.Date(2026, 11, 1, 10, 0, 0, 0, time.UTC))
	for _, want := range []string{"12 hours", `"message_id":"m1"`, "2026-11-01T10:00:00Z"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("%s is missing in %s", want, log.String())
		}
	}
}

// Workers that wait for the next stage are blocked, not idle: the gauge shows the
// bottleneck, and its states add up to the cap of the stage.
func TestWorkersAreCounted(t *testing.T) {
	p := newPipeline(t)
	release, entered := make(chan struct{}), make(chan struct{}, 1) // buffered: one activation at once
	fake(p, map[store.Stage]*gauge{}, func(_ context.Context, _ *provision.Task, st store.Stage) error {
		if st == store.StageActivate {
			select {
			case entered <- struct{}{}:
			default:
			}
			<-release
		}
		return nil
	})
	var wg sync.WaitGroup
	out := chain(t.Context(), p, &wg, enqueue(t, p, 20))
	<-entered
	want := map[string]float64{
		"download idle": 0, "download busy": 0, "download blocked": 5, "unpack idle": 0, "unpack busy": 0,
		"unpack blocked": 2, "activate idle": 0, "activate busy": 1, "activate blocked": 0,
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for !maps.Equal(p.workerStates(), want) && ctx.Err() == nil {
		wait(ctx, time.Millisecond)
	}
	if got := p.workerStates(); !maps.Equal(got, want) {
		t.Errorf("behind a blocked stage: %v, want %v", got, want)
	}
	close(release)
	for job := range out {
		p.finish(t.Context(), job, done)
	}
	wg.Wait()
	for state, n := range p.workerStates() {
		if n != 0 {
			t.Errorf("%s: %g workers are left", state, n)
		}
	}
}

// workerStates reads the gauge of the workers.
func (p *Pipeline) workerStates() map[string]float64 {
	states := map[string]float64{}
	for _, st := range p.table {
		for _, state := range []workerState{idle, busy, blocked} {
			n := testutil.ToFloat64(p.metrics.stage.workers.WithLabelValues(string(st.name), string(state)))
			states[string(st.name)+" "+string(state)] = n
		}
	}
	return states
}

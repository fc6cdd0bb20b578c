package pipeline

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/store"
)

// Whatever a failure comes to, its counter was there before it: with 0.
func TestCountersBeforeTheyCount(t *testing.T) {
	m := NewMetrics(prometheus.NewRegistry())
	before := testutil.CollectAndCount(m.failures) + testutil.CollectAndCount(m.attacks)
	if before == 0 {
		t.Fatal("no counters")
	}
	p := newPipeline(t)
	errs := []error{errors.New("never seen"), download.ErrGone, &archive.Rejection{Reason: archive.Layout}}
	for _, c := range classes {
		errs = append(errs, fmt.Errorf("wrapped: %w", c.target))
	}
	for _, r := range archive.Rules() {
		errs = append(errs, &archive.Rejection{Reason: r.Reason, Violation: r.Violation})
	}
	for _, st := range []store.Stage{store.StageDownload, store.StageUnpack, store.StageActivate} {
		for _, err := range errs {
			for failures := range p.cfg.MaxAttempts {
				job := &Job{Task: provision.Task{Attempt: store.Attempt{Stage: st}}}
				job.Image.Failures = failures
				j := p.judge(&job.Task, err)
				m.failure(st, j)
				if j.verdict == violation {
					m.violation(j.class)
				}
			}
		}
	}
	if after := testutil.CollectAndCount(m.failures) + testutil.CollectAndCount(m.attacks); after != before {
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

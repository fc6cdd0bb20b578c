package pipeline

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/store"
)

// An attempt whose time is up at once is an attempt all the same: it counts.
func TestTimeLimitCounts(t *testing.T) {
	p := newPipeline(t)
	job := enqueue(t, p, 1)[0]
	st := p.table[0]
	st.limit = -1
	st.do = func(ctx context.Context, _ *provision.Task) error { return ctx.Err() }
	st.undo = func(context.Context, *provision.Task) error { return nil }
	for range 2 {
		p.step(t.Context(), st, job)
	}
	if job.Image.Attempt != 2 || job.Image.Running {
		t.Errorf("%+v, want two attempts that ended", job.Image.Progress)
	}
}

// Whoever stops the daemon sees what it waits for, and for how long.
func TestStopIsAnnounced(t *testing.T) {
	var log bytes.Buffer
	p := newLoggingPipeline(t, zerolog.New(&log))
	jobs := enqueue(t, p, 2)
	p.jobs.moved(jobs[0], store.StageUnpack, jobWorking)
	p.jobs.moved(jobs[1], store.StageDownload, jobWaiting)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	log.Reset()
	announceStop(ctx, p)
	for _, says := range []string{
		`"waits_for":["unpack of image 1 (images/0.tar)"]`, `"at_most_ms":1000`, "stopping: nothing new is taken",
	} {
		if !strings.Contains(log.String(), says) {
			t.Errorf("%s; want %s", &log, says)
		}
	}
}

package pipeline

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/pipeline/health"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/reconcile"
	"imagemanager.internal/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testConfig() Config {
	return Config{
		Bucket: "b", Prefix: "images/", Downloads: 5, Unpacks: 2, Activations: 1,
		DownloadTimeout: time.Minute, UnpackTimeout: time.Minute, ActivateTimeout: time.Minute,
		MaxAttempts: 3, MaxCutOffs: 3, Unclaimed: time.Minute, Backoff: time.Second,
		Grace: time.Second,
	}
}

func newPipeline(t *testing.T) *Pipeline {
	t.Helper()
	return newPipelineOn(t, zerolog.Nop(), nil)
}

func newLoggingPipeline(t *testing.T, log zerolog.Logger) *Pipeline {
	t.Helper()
	return newPipelineOn(t, log, nil)
}

// newPipelineOn returns a pipeline without a pool, and without a queue. The machine is
// fit.
func newPipelineOn(t *testing.T, log zerolog.Logger, bucket *download.Bucket) *Pipeline {
	t.Helper()
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "c.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	down, err := download.New(nil, download.Config{Dir: filepath.Join(t.TempDir(), "blobs")})
	if err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	record := provision.NewRecorder(st, log, provision.NewMetrics(reg))
	hostConfig := provision.Config{Prefix: "images/", DeviceBytes: 1 << 30}
	host := provision.New(hostConfig, record, down, nil)
	p, err := New(testConfig(), Deps{
		Store: st, Bucket: bucket, Host: host, Recorder: record, Rules: hostConfig.Rules, Log: log,
		Metrics: NewMetrics(reg, st),
		Reconciler: func(jobs reconcile.Jobs) *reconcile.Reconciler {
			return reconcile.New(reconcile.Deps{
				Store: st, Archives: down, Host: host, Recorder: record,
				Jobs: jobs, Log: log, Metrics: reconcile.NewMetrics(reg),
			})
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.health.Capacity = func() health.Reasons { return nil }
	return p
}

// gauge counts how many are inside, and the most there ever were.
type gauge struct {
	inside, most atomic.Int64
}

func (g *gauge) enter() {
	n := g.inside.Add(1)
	for old := g.most.Load(); n > old && !g.most.CompareAndSwap(old, n); old = g.most.Load() {
	}
}

// fake replaces the work of the stages by work, and keeps their caps and their journal.
func fake(p *Pipeline, gauges map[store.Stage]*gauge, work func(context.Context, *provision.Task, store.Stage) error) {
	for i, st := range p.table {
		g := &gauge{}
		gauges[st.name] = g
		p.table[i].undo = func(context.Context, *provision.Task) error { return nil }
		p.table[i].do = func(ctx context.Context, job *provision.Task) error {
			g.enter()
			defer g.inside.Add(-1)
			if err := work(ctx, job, st.name); err != nil {
				return err
			}
			return p.record.HandOff(ctx, job, "fake")
		}
	}
}

// enqueue makes n images and their jobs.
func enqueue(t *testing.T, p *Pipeline, n int) []*Job {
	t.Helper()
	var jobs []*Job
	for i := range n {
		img, _, err := p.store.Enqueue(t.Context(),
			store.Object{Bucket: "b", Key: fmt.Sprintf("images/%d.tar", i), ETag: "e"})
		if err != nil {
			t.Fatal(err)
		}
		job, fresh := p.jobs.take(img.ID, nil)
		if !fresh {
			t.Fatal("job exists")
		}
		job.Image = img
		jobs = append(jobs, job)
	}
	return jobs
}

// chain connects the stages of the table behind a channel of jobs.
func chain(ctx context.Context, p *Pipeline, wg *sync.WaitGroup, jobs []*Job) <-chan *Job {
	in := make(chan *Job)
	wg.Go(func() {
		defer close(in)
		for _, j := range jobs {
			select {
			case in <- j:
			case <-ctx.Done():
				p.finish(ctx, j, returned)
			}
		}
	})
	var out <-chan *Job = in
	for _, st := range p.table {
		out = p.start(ctx, wg, st, out)
	}
	return out
}

// Twenty jobs fill every stage to its cap and never beyond.
func TestCaps(t *testing.T) {
	p := newPipeline(t)
	gauges := map[store.Stage]*gauge{}
	held := make(chan struct{})
	var first sync.Once
	full := make(chan struct{})
	fake(p, gauges, func(_ context.Context, _ *provision.Task, st store.Stage) error {
		if st == store.StageActivate { // jobs pile up behind the first that gets here
			first.Do(func() { close(held) })
			<-full
		}
		return nil
	})
	var wg sync.WaitGroup
	out := chain(t.Context(), p, &wg, enqueue(t, p, 20))
	go func() {
		defer close(full)
		<-held
	}()
	n := 0
	for job := range out {
		n++
		p.finish(t.Context(), job, done)
	}
	wg.Wait()
	if n != 20 {
		t.Errorf("%d jobs came out, want 20", n)
	}
	for st, most := range map[store.Stage]int64{store.StageDownload: 5, store.StageUnpack: 2, store.StageActivate: 1} {
		if got := gauges[st].most.Load(); got > most {
			t.Errorf("%s: %d at once, cap %d", st, got, most)
		}
	}
	if len(p.jobs.byImage) != 0 {
		t.Errorf("%d jobs are still registered", len(p.jobs.byImage))
	}
}

// Back-pressure: with the last stage blocked, no more jobs are taken than the stages have
// workers.
func TestBackPressure(t *testing.T) {
	p := newPipeline(t)
	gauges := map[store.Stage]*gauge{}
	release := make(chan struct{})
	var begun atomic.Int64
	fake(p, gauges, func(_ context.Context, _ *provision.Task, st store.Stage) error {
		switch st {
		case store.StageDownload:
			begun.Add(1)
		case store.StageActivate:
			<-release
		}
		return nil
	})
	caps := int64(5 + 2 + 1)
	var wg sync.WaitGroup
	jobs := enqueue(t, p, 20)
	out := chain(t.Context(), p, &wg, jobs)
	for begun.Load() < caps { // everything that can start has started
		wait(t.Context(), time.Millisecond)
	}
	// one more would have had the time of a whole run of the stages to start
	if _, err := p.store.Images(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := begun.Load(); n > caps {
		t.Errorf("%d downloads begun behind a blocked stage, want %d", n, caps)
	}
	close(release)
	for job := range out {
		p.finish(t.Context(), job, done)
	}
	wg.Wait()
}

// A failure is recorded with its verdict, retried while attempts are left, then the image
// is given up.
func TestAttemptsAreBounded(t *testing.T) {
	p := newPipeline(t)
	fake(p, map[store.Stage]*gauge{}, func(_ context.Context, _ *provision.Task, st store.Stage) error {
		if st == store.StageUnpack {
			return syscall.EIO
		}
		return nil
	})
	img := enqueue(t, p, 1)[0].Image
	for attempt := 1; attempt <= 3; attempt++ {
		p.jobs.mu.Lock()
		delete(p.jobs.byImage, img.ID)
		p.jobs.mu.Unlock()
		job, _ := p.jobs.take(img.ID, nil)
		img, err := p.store.Image(t.Context(), img.ID)
		if err != nil {
			t.Fatal(err)
		}
		job.Image = img
		p.table[0].check = func(context.Context, *provision.Task) error { return nil }
		var wg sync.WaitGroup
		for range chain(t.Context(), p, &wg, []*Job{job}) {
			t.Error("a failed job came out")
		}
		wg.Wait()
		img, err = p.store.Image(t.Context(), img.ID)
		if err != nil {
			t.Fatal(err)
		}
		want := store.StatePending
		if attempt == 3 {
			want = store.StateDead
		}
		if img.State != want || attempt < 3 && (img.Failures != attempt || p.jobs.retryAt[img.ID].IsZero()) {
			t.Errorf("attempt %d: %+v, want %s; waiting %v", attempt, img.Progress, want, p.jobs.retryAt)
		}
	}
}

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		err     error
		verdict verdict
		class   string
	}{
		{&archive.Rejection{Reason: "setuid_setgid"}, reject, "setuid_setgid"},
		{fmt.Errorf("x: %w", &archive.Rejection{Reason: "dotdot_name", Violation: true}), violation, "dotdot_name"},
		{fmt.Errorf("%w: %w", errTimeout, context.DeadlineExceeded), retry, "timeout"},
		{download.ErrKey, reject, "bad_key"},
		{download.ErrGone, vanished, "object_gone"},
		{download.ErrChanged, superseded, "superseded"},
		{download.ErrDenied, outage, "denied"},
		{fmt.Errorf("%w: %w", devmapper.ErrNoSpace, syscall.ENOSPC), halt, "pool_full"},
		{syscall.ENOSPC, halt, "disk_full"},
		{errors.New("never seen"), retry, "other"},
	} {
		if v, class := classify(c.err); v != c.verdict || class != c.class {
			t.Errorf("%v: %s %s, want %s %s", c.err, v, class, c.verdict, c.class)
		}
	}
}

// While the machine is not fit for work its errors are not counted against an image; once
// it is, they are.
func TestHalt(t *testing.T) {
	p := newPipeline(t)
	job := enqueue(t, p, 1)[0]
	fail := func() outcome {
		t.Helper()
		if err := p.begin(t.Context(), job, store.StageDownload); err != nil {
			t.Fatal(err)
		}
		return p.recordFailure(t.Context(), job, p.judge(&job.Task, fmt.Errorf("write: %w", syscall.ENOSPC)))
	}
	p.health.Capacity = func() health.Reasons { return health.Reasons{health.DiskLow: provision.ErrDiskLow} }
	for range 2 * p.cfg.MaxAttempts {
		if o := fail(); o.verdict != retry || o.delay <= 0 {
			t.Fatalf("%+v, want the message to come back later", o)
		}
	}
	if job.Image.Failures != 0 || job.Image.Running || job.Image.State != store.StatePending {
		t.Errorf("after halts: %+v", job.Image.Progress)
	}
	p.health.Capacity = func() health.Reasons { return nil }
	for i := range p.cfg.MaxAttempts {
		if o := fail(); (o.verdict == dead) != (i == p.cfg.MaxAttempts-1) {
			t.Errorf("failure %d: %+v", i+1, o)
		}
	}
}

// A database that cannot be written stops intake until a write succeeds, and says so.
func TestUnwritableDatabase(t *testing.T) {
	p := newPipeline(t)
	p.health.Capacity = func() health.Reasons { return health.Reasons{health.Database: p.health.JournalError()} }
	p.judge(&provision.Task{}, fmt.Errorf("commit: %w", sqlite3.Error{Code: sqlite3.ErrFull}))
	if p.health.AcceptingWork() || p.health.Reasons().Err() == nil {
		t.Fatal("work is taken although the database cannot be written")
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { p.health.Watch(ctx) })
	for p.health.Reasons().Err() != nil && t.Context().Err() == nil {
		wait(t.Context(), time.Millisecond)
	}
	cancel()
	wg.Wait()
}

// A reconcile that had an image leaves its message and its next attempt as it says.
func TestAfterReconcile(t *testing.T) {
	for name, c := range map[string]struct {
		outcome reconcile.Outcome
		waits   bool
	}{
		"it is whole":            {outcome: reconcile.Outcome{Whole: true}},
		"it waits for a message": {outcome: reconcile.Outcome{}},
		"it waits for its time":  {outcome: reconcile.Outcome{Due: time.Now().Add(time.Hour)}, waits: true},
		"it is made again, now":  {outcome: reconcile.Outcome{Due: time.Now()}, waits: true},
	} {
		p := newPipeline(t)
		jobs := jobsOfPipeline{p}
		task, free := jobs.Take(1)
		if _, again := jobs.Take(1); !free || again || !jobs.Working()[1] {
			t.Errorf("%s: the image was not taken once", name)
		}
		jobs.Finish(t.Context(), task, c.outcome)
		due := jobs.Due(1)
		if due.IsZero() == c.waits || c.waits && due.Sub(c.outcome.Due).Abs() > time.Minute || jobs.Working()[1] {
			t.Errorf("%s: due %s", name, due)
		}
	}
}

func TestBackoff(t *testing.T) {
	for failures := range 100 {
		for range 50 {
			if d := backoff(time.Second, failures+1); d < time.Second || d > 15*time.Minute+time.Second {
				t.Fatalf("after %d failures: %s", failures+1, d)
			}
		}
	}
}

// A message is settled once, after its last record; the record that asks for most
// decides.
func TestDelivery(t *testing.T) {
	again := outcome{verdict: retry, delay: time.Minute}
	for name, c := range map[string]struct {
		outcomes []outcome
		want     verdict
	}{
		"no record":         {nil, ""},
		"all done":          {[]outcome{done, done}, ""},
		"refused is final":  {[]outcome{{verdict: reject}, {verdict: violation}, {verdict: vanished}, done}, ""},
		"one retry":         {[]outcome{done, again, done}, retry},
		"dead is buried":    {[]outcome{done, {verdict: dead}, done}, dead},
		"retry comes first": {[]outcome{{verdict: dead}, again}, retry},
	} {
		d := &delivery{open: 1 + len(c.outcomes)}
		for i, o := range append(c.outcomes, done) { // the last is intake's own
			if last := d.end(o); last != (i == len(c.outcomes)) {
				t.Errorf("%s: outcome %d: last %t", name, i, last)
			}
		}
		if d.worst.verdict != c.want {
			t.Errorf("%s: %q decides, want %q", name, d.worst.verdict, c.want)
		}
	}
}

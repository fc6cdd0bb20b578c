// Package pipeline takes images from a notification to an active snapshot.
//
// stage.go holds the table of stages and the loop over it: read it first. intake.go turns
// messages into jobs, and resume.go does so with what waits in the journal. message.go
// settles the messages of ended jobs. judge.go and verdict.go are the one place with an
// opinion on errors.
//
// The steps on this host are those of package provision. Package reconcile compares
// journal, pool and files. Package health knows whether work may be taken.
package pipeline

import (
	"context"
	"errors"
	"time"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"imagemanager.internal/internal/awserr"
	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/pipeline/health"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/queue"
	"imagemanager.internal/internal/reconcile"
	"imagemanager.internal/internal/span"
	"imagemanager.internal/internal/store"
)

// undoTimeout bounds a roll-back, and every write not to be cut off by a shutdown.
const undoTimeout = time.Minute

// Config holds what an operator may set. New refuses nonsense.
type Config struct {
	Bucket string // notifications about other buckets are counted and dropped
	Prefix string // so are those about keys elsewhere

	Downloads, Unpacks, Activations                 int // jobs at once in each stage
	DownloadTimeout, UnpackTimeout, ActivateTimeout time.Duration

	MaxAttempts int           // failures in a row at one stage before an image is given up
	MaxCutOffs  int           // attempts in a row, dead with the process, before an image is tried alone, once
	Unclaimed   time.Duration // after a message was returned: its image is taken up without it when this is over
	Backoff     time.Duration // before the second attempt; doubles, with full jitter
	Grace       time.Duration // how long running stages may go on after a stop

	MinFreeData, MinFreeMetadata float64  // fractions of the pool; below, nothing new is taken
	Disks                        []string // directories on the file systems to watch
	MinFreeDisk                  int64    // bytes on each of them; below, nothing new is taken

	StateDir       string            // for messages
	Kept           map[string]string // directories to measure, by the label of the gauge
	ReconcileEvery time.Duration     // interval between reconciles; 0 disables them

	KeepForeign     bool          // events about another bucket or prefix are dead-lettered, not dropped
	BackfillAtStart bool          // compare the bucket with the journal when Run starts
	BackfillEvery   time.Duration // interval between later comparisons; 0 disables them
	DepthEvery      time.Duration // interval between questions for the queues' depths; 0 disables them
}

func (c Config) check() error {
	var errs []error
	if c.Downloads < 1 || c.Unpacks < 1 || c.Activations < 1 {
		errs = append(errs, errors.New("every stage needs at least one worker"))
	}
	if c.DownloadTimeout <= 0 || c.UnpackTimeout <= 0 || c.ActivateTimeout <= 0 {
		errs = append(errs, errors.New("every stage needs a time-out"))
	}
	if c.MaxAttempts < 1 || c.MaxCutOffs < 1 || c.Backoff <= 0 {
		errs = append(errs, errors.New("attempts, cut-offs and backoff must be positive"))
	}
	return errors.Join(errs...)
}

// contentOf names what a directory to watch holds: the name of a directory would be an
// unbounded label.
func (c Config) contentOf(dir string) string {
	if dir == c.StateDir {
		return "state"
	}
	return "pool"
}

// suspect reports whether the image may have killed the processes at work on it.
func (c Config) suspect(img store.Image) bool {
	return img.State == store.StatePending && img.CutOffs >= c.MaxCutOffs
}

// Deps are what a pipeline works with.
type Deps struct {
	Store      *store.Store
	Queue      *queue.Client
	Bucket     *download.Bucket
	Pool       *devmapper.Pool
	Host       *provision.Host
	Recorder   *provision.Recorder
	Reconciler func(reconcile.Jobs) *reconcile.Reconciler // makes one for the running jobs
	Rules      func(key string) string                    // of provision.Config
	Log        zerolog.Logger
	Metrics    *Metrics
	Traces     trace.TracerProvider // where spans begin; nil for nowhere

	// Exclusive keeps other commands out of the pool until the function returned is
	// called. Its error names the command at work.
	Exclusive func() (func() error, error)
	// Alone calls do while other commands are kept out of the pool. It waits for one at
	// work, and lets one that waits go first.
	Alone func(ctx context.Context, do func() error) error
}

func (d Deps) tracer() trace.Tracer {
	if d.Traces == nil {
		return noop.Tracer{}
	}
	return d.Traces.Tracer(span.Scope)
}

// Pipeline is one consumer. Make it with New, then Recover, then Run.
type Pipeline struct {
	cfg        Config
	table      []stage
	store      *store.Store
	bucket     *download.Bucket
	pool       *devmapper.Pool
	host       *provision.Host
	record     *provision.Recorder
	reconciler *reconcile.Reconciler
	reconciled lastReconcile
	rules      func(key string) string
	exclusive  func() (func() error, error)
	log        zerolog.Logger
	metrics    *Metrics

	activations *activations

	jobs      *jobs
	messages  *messages
	health    *health.Monitor
	growth    *growth
	depths    *depths
	traces    *traces
	submitter *Submitter
}

// New checks the configuration.
func New(cfg Config, d Deps) (*Pipeline, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	p := &Pipeline{
		cfg: cfg, store: d.Store, bucket: d.Bucket, pool: d.Pool, host: d.Host, record: d.Recorder,
		rules: d.Rules, exclusive: d.Exclusive, log: d.Log, metrics: d.Metrics,
		jobs:      newJobs(),
		submitter: &Submitter{Store: d.Store, Bucket: d.Bucket, Name: cfg.Bucket, Prefix: cfg.Prefix, Rules: d.Rules},
	}
	p.health = health.New(health.Config{
		Bucket: cfg.Bucket, Prefix: cfg.Prefix, StateDir: cfg.StateDir, Disks: cfg.Disks,
		MinFreeDisk: cfg.MinFreeDisk, MinFreeData: cfg.MinFreeData, MinFreeMetadata: cfg.MinFreeMetadata,
	}, health.Deps{
		Store: d.Store, Settling: d.Queue.Trouble, PoolStatus: d.Pool.Status, Probe: d.Bucket.Probe,
		Remedy: remedy, Log: d.Log,
		OnRecovery: p.retrySuspects, OnPoolStatus: d.Metrics.pool.set,
		OnDisk: func(dir string, free, reserve int64) { d.Metrics.disk.set(cfg.contentOf(dir), free, reserve) },
	})
	p.activations = &activations{alone: d.Alone, reconciled: &p.reconciled, log: d.Log}
	p.health.Activating = p.activations.progress
	p.messages = newMessages(cfg, d, p.health, p.jobs)
	p.growth = &growth{
		store: d.Store, dirs: cfg.Kept, idle: p.jobs.idle, limit: &p.health.Limit, log: d.Log, metrics: d.Metrics,
	}
	p.depths = &depths{
		queue: d.Queue, every: cfg.DepthEvery, gauge: d.Metrics.queue.depth, log: d.Log,
		failing: map[string]awserr.Class{},
	}
	p.traces = &traces{tracer: d.tracer(), jobs: p.jobs, store: d.Store}
	p.table = p.stages()
	p.metrics.describe(cfg, p.table)
	p.metrics.queue.callFailed, p.metrics.queue.atLimit = p.health.QueueCallFailed, p.health.MessageCapped
	p.reconciler = d.Reconciler(jobsOfPipeline{p})
	return p, nil
}

// retrySuspects takes up the images that failed for what may have been an outage.
func (p *Pipeline) retrySuspects() { p.jobs.hasten(p.health.Breaker.Suspects) }

// Health returns what knows whether work is taken, and why not.
func (p *Pipeline) Health() *health.Monitor { return p.health }

// Recover brings journal, pool and files into agreement, but for snapshots that are not
// active: Run activates those. Nothing else may use the pool meanwhile. See
// reconcile.Reconciler.
func (p *Pipeline) Recover(ctx context.Context) (reconcile.Recovered, error) {
	if err := p.traces.interrupted(ctx); err != nil {
		p.log.Warn().Err(err).Msg("the journal does not say which attempts were cut off")
	}
	began := time.Now()
	done, inactive, err := p.reconciler.Prepare(ctx)
	p.activations.inactive = inactive
	p.reconciled.ended(began, errors.Join(err, done.Err()))
	return done, err
}

// ProbeDeadLetter refuses an unfit dead-letter queue: an error in the configuration must
// show before a message depends on it. If the queue cannot be looked at, the error is
// only logged.
func (p *Pipeline) ProbeDeadLetter(ctx context.Context) error { return p.messages.probeDeadLetter(ctx) }

// withGrace returns a context. It ends the grace period after ctx does. The function
// returned ends it at once.
func withGrace(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	release := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(grace, cancel)
		context.AfterFunc(work, func() { timer.Stop() })
	})
	return work, func() { release(); cancel() }
}

// wait returns after d, or when ctx ends.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// Package pipeline takes images from a notification to an active snapshot: it is the mind
// of the program.
//
// stage.go holds the table of stages and the loop over it; read it first. intake.go turns
// messages into jobs, feed.go what waits in the journal, delivery.go ended jobs into
// settled messages. verdict.go judges errors, breaker.go tells outages from an image's
// own faults, recover.go brings journal, pool and blob directory into agreement after a
// crash. Leaves (queue, download, archive, devmapper, store) return errors; only this
// package has an opinion on them.
package pipeline

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/queue"
	"imagemanager.internal/internal/store"
)

// undoTimeout bounds a roll-back and every write that must not be cut off by a shutdown.
const undoTimeout = time.Minute

// Config holds what an operator may set. New refuses nonsense.
type Config struct {
	Bucket string // notifications about other buckets are counted and dropped
	Prefix string // keys elsewhere are counted and dropped

	Downloads, Unpacks, Activations                 int // jobs at once in each stage
	DownloadTimeout, UnpackTimeout, ActivateTimeout time.Duration

	Policy      archive.Policy
	Policies    map[string]archive.Policy // by key prefix; the longest that fits wins over Policy
	Limits      archive.Limits
	DeviceBytes int64 // virtual size of every image's thin device

	MaxAttempts int // failures in a row at one stage before an image is given up
	MaxCutOffs  int // attempts in a row that died with the process before an image is tried alone, once
	// how long a message that was given back may stay away before its image is taken up
	// without it
	Unclaimed time.Duration
	Backoff   time.Duration // before the second attempt; doubles, with full jitter
	Grace     time.Duration // how long running stages may go on after a stop

	MinFreeData, MinFreeMetadata float64  // fractions of the pool; below, nothing new is taken
	Disks                        []string // directories on the file systems that must have room
	PoolDir                      string   // of the pool's data file; "": they are on a block device
	MinFreeDisk                  int64    // bytes on each of them; below, nothing new is taken

	StateDir       string        // for messages
	ReconcileEvery time.Duration // compare journal, pool and files so often; 0 never

	ManifestDir    string // manifests of sealed trees
	ViolationDir   string // archives refused as attacks
	ViolationBytes int64  // all of them together

	KeepForeign     bool          // events about another bucket or prefix are buried, not dropped
	BackfillAtStart bool          // compare the bucket with the journal when Run starts
	BackfillEvery   time.Duration // and so often; 0 never
}

// Parts are the leaves that a pipeline works with.
type Parts struct {
	Store      *store.Store
	Queue      *queue.Client
	Downloader *download.Downloader
	Bucket     *download.Bucket
	Pool       *devmapper.Pool
	Log        zerolog.Logger
	Metrics    *Metrics

	// Exclusive keeps other commands out of the pool until the function that it returns
	// is called. Its error says that one is at work.
	Exclusive func() (func() error, error)
}

// Pipeline is one consumer. Make it with New, then Recover, then Run.
type Pipeline struct {
	Parts
	cfg     Config
	table   []stage
	room    func() error                // nil: the machine is fit for new work; else why not, and what to do
	probe   func(context.Context) error // asks S3 for the bucket as such
	metrics *Metrics

	permits chan struct{} // one for each message held; buffered: its length is the number held

	mu      sync.Mutex
	jobs    map[int64]*Job // by image id: at most one job an image
	held    reservation
	fetched map[int64]store.Blob // archives that this process hashed as it wrote them
	parked  map[int64]time.Time  // pending images without a job, and when they are taken up without a message
	solo    int64                // image that is tried alone; 0: none
	wake    chan struct{}        // buffered by one: a parked image, or one to be resumed, is there

	watchers  sync.WaitGroup // one goroutine for each message held
	condition condition
	breaker   breaker
	quiet     quiet // limits the lines about calls to the queue
}

// New checks the configuration.
func New(cfg Config, parts Parts) (*Pipeline, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	p := &Pipeline{
		Parts:   parts,
		cfg:     cfg,
		metrics: parts.Metrics,
		permits: make(chan struct{}, cfg.Downloads+cfg.Unpacks+cfg.Activations),
		jobs:    map[int64]*Job{},
		parked:  map[int64]time.Time{},
		fetched: map[int64]store.Blob{},
		wake:    make(chan struct{}, 1),
	}
	p.table, p.room, p.probe = p.stages(), p.fit, parts.Bucket.Probe
	p.metrics.callFailed = p.callFailed
	return p, nil
}

func (c Config) check() error {
	var errs []error
	if c.Downloads < 1 || c.Unpacks < 1 || c.Activations < 1 {
		errs = append(errs, errors.New("every stage needs at least one worker"))
	}
	if c.DownloadTimeout <= 0 || c.UnpackTimeout <= 0 || c.ActivateTimeout <= 0 {
		errs = append(errs, errors.New("every stage needs a time-out"))
	}
	if c.DeviceBytes <= 0 || c.MaxAttempts < 1 || c.MaxCutOffs < 1 || c.Backoff <= 0 {
		errs = append(errs, errors.New("device size, attempts, cut-offs and backoff must be positive"))
	}
	return errors.Join(errs...)
}

// policy is the one that applies to a key.
func (c Config) policy(key string) archive.Policy {
	policy, longest := c.Policy, -1
	for prefix, p := range c.Policies {
		if strings.HasPrefix(key, prefix) && len(prefix) > longest {
			policy, longest = p, len(prefix)
		}
	}
	return policy
}

// Rules are what a refusal of the key rests on, in words: what was refused under others
// may be asked for again.
func (c Config) Rules(key string) string {
	l := c.Limits
	return fmt.Sprintf("policy %s, archive and files %d bytes, file %d bytes, %d entries, device %d bytes",
		c.policy(key), l.ImageBytes, l.FileBytes, l.Entries, c.DeviceBytes)
}

// graceful returns a context that ends the grace period after ctx does. The function
// returned ends it at once.
func (p *Pipeline) graceful(ctx context.Context) (context.Context, context.CancelFunc) {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	release := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(p.cfg.Grace, cancel)
		context.AfterFunc(work, func() { timer.Stop() })
	})
	return work, func() { release(); cancel() }
}

// take makes the image's job, or finds the one that is under way; the delivery waits for
// it in both cases. There is none to wait for when the image's stage does not come back.
func (p *Pipeline) take(image int64, d *delivery) (job *Job, fresh bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	job, found := p.jobs[image]
	if !found {
		job = &Job{image: store.Image{ID: image}, over: make(chan struct{})}
		p.jobs[image] = job
		delete(p.parked, image)
	}
	if job.stuck {
		return nil, false
	}
	if d != nil {
		job.deliveries = append(job.deliveries, d)
	}
	return job, !found
}

// finish ends a job: its image is free for the next one, its messages learn the outcome.
func (p *Pipeline) finish(work context.Context, job *Job, o outcome) {
	p.condition.count(o.verdict)
	p.mu.Lock()
	delete(p.jobs, job.image.ID)
	waiting := job.deliveries
	if o.verdict == retry && !o.left {
		p.park(job, o)
	}
	p.mu.Unlock()
	p.nudge()
	if s := job.image.State; s == store.StateActive || s.Refused() {
		p.breaker.forget(job.image.ID)
		p.forgetArchive(job.image.ID)
	}
	defer close(job.over)
	for i, d := range waiting {
		if i >= job.began && (o.verdict == vanished || o.verdict == superseded) {
			p.settle(work, d, abandoned) // it tells of the object as it was after we looked
			continue
		}
		p.settle(work, d, o)
	}
}

// forgetArchive drops the note that this process hashed an image's archive.
func (p *Pipeline) forgetArchive(image int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.fetched, image)
}

// park notes when the image of a job is taken up again by itself: after its delay, or,
// where that is given back to a message, a while after it ought to have come. Pipeline.mu
// is held.
func (p *Pipeline) park(job *Job, o outcome) {
	due := time.Now().Add(o.delay)
	if len(job.deliveries) > 0 && !p.cfg.suspect(job.image) {
		due = due.Add(p.cfg.Unclaimed)
	}
	p.parked[job.image.ID] = due
}

// nudge wakes the goroutine that feeds images from the journal.
func (p *Pipeline) nudge() {
	select {
	case p.wake <- struct{}{}:
	default: // it is going to look anyway
	}
}

// heartbeat keeps the held messages invisible until work ends.
func (p *Pipeline) heartbeat(work context.Context) {
	if err := p.Queue.Run(work); err != nil && work.Err() == nil {
		p.Log.Error().Err(err).Msg("heartbeat ended")
	}
}

// Package provision does the recorded steps of one image on this host: it downloads the
// archive, unpacks it into a thin device, activates a snapshot, verifies the image, and
// removes it again. It knows no queue.
//
// Each step writes its intent to the journal, acts, and records the result. A step cut
// off anywhere can be undone, and begun again. download.go, unpack.go and activate.go
// are the three stages; each has a step, its undo, and a check of the recorded result.
// record.go counts and logs what is written to the journal. device.go destroys thin
// devices, manifests.go and violations.go keep files beside them, reserve.go sets space
// aside.
//
// Errors are returned. What an error means for an image is decided by whoever called:
// package pipeline.
package provision

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/store"
)

// rollbackTimeout bounds the roll-back of a command's step.
const rollbackTimeout = time.Minute

// Config says how images are made.
type Config struct {
	Prefix string // other keys are refused

	Policy      archive.Policy
	Policies    map[string]archive.Policy // by key prefix; the longest match wins over Policy
	Limits      archive.Limits
	DeviceBytes int64 // virtual size of an image's thin device

	Engine       Engine       // that writes trees; the zero value is the mounted one
	Verify       Verification // of what was written; the zero value is by the kernel
	VerifySample int          // the kernel reads one tree in so many, too, if Verify is VerifyDevice; 0 is none

	StateDir    string // archives are in its file system
	PoolDir     string // directory of the pool's data file; empty for a block device
	MinFreeDisk int64  // bytes to leave free on the file systems of both

	ManifestDir    string // manifests of sealed trees
	ViolationDir   string // archives refused as attacks
	ViolationBytes int64  // limit for all of them together
}

// policy returns the policy for a key.
func (c Config) policy(key string) archive.Policy {
	policy, longest := c.Policy, -1
	for prefix, p := range c.Policies {
		if strings.HasPrefix(key, prefix) && len(prefix) > longest {
			policy, longest = p, len(prefix)
		}
	}
	return policy
}

// Judging returns how an archive with this key is judged.
func (c Config) Judging(key string) archive.Options {
	return archive.Options{Policy: c.policy(key), Limits: c.Limits}
}

// CheckFits returns ErrTooSmall if an image's device cannot hold the planned tree.
func (c Config) CheckFits(plan *archive.Plan) error {
	if need := plan.DeviceBytes(); need > c.DeviceBytes {
		return fmt.Errorf("%w: it needs about %s of %s: raise DEVICE_SIZE", ErrTooSmall,
			sizeText(need), sizeText(c.DeviceBytes))
	}
	return nil
}

// Rules describes the policy and the limits for a key. A refusal is recorded with them:
// under other rules the image may be asked for again.
func (c Config) Rules(key string) string {
	l := c.Limits
	return fmt.Sprintf("policy %s, archive and files %d bytes, file %d bytes, %d entries, device %d bytes",
		c.policy(key), l.ImageBytes, l.FileBytes, l.Entries, c.DeviceBytes)
}

// Task is an image being worked on. It belongs to one goroutine.
type Task struct {
	Image   store.Image   // as of its last event
	Attempt store.Attempt // fencing token of the current attempt
	Began   time.Time     // of the current attempt
	Device  int64         // of the current attempt, once its id is taken; otherwise 0
	SpanID  string        // of the current attempt, in hex; empty if it is not recorded

	Progress *Progress // of the current attempt; nil if nobody asks for it
}

// Host makes images on this machine. All its methods may be called at once, for
// different images.
type Host struct {
	cfg      Config
	store    *store.Store
	archives *download.Downloader
	pool     *devmapper.Pool
	log      zerolog.Logger
	record   *Recorder
	space    *reservations
	engines  *engines

	Devices   *Devices
	Manifests *Manifests

	mu      sync.Mutex
	fetched map[int64]store.Blob // archives, hashed by this process while it wrote them
}

// New returns a Host. The recorder has the journal, the log and the metrics.
func New(cfg Config, r *Recorder, archives *download.Downloader, pool *devmapper.Pool) *Host {
	return &Host{
		cfg:       cfg,
		store:     r.store,
		archives:  archives,
		pool:      pool,
		log:       r.log,
		record:    r,
		space:     newReservations(pool, cfg.MinFreeDisk, r.metrics.setReserved),
		engines:   &engines{engine: cfg.Engine, verify: cfg.Verify, sample: cfg.VerifySample},
		Devices:   &Devices{store: r.store, pool: pool, log: r.log},
		Manifests: &Manifests{dir: cfg.ManifestDir, store: r.store},
		fetched:   map[int64]store.Blob{},
	}
}

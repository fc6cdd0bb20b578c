package pipeline

import (
	"context"
	"errors"
	"math/rand/v2"
	"syscall"
	"time"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/queue"
	"imagemanager.internal/internal/store"
)

var (
	// errTimeout is the cause of a stage's context that ran out of time.
	errTimeout = errors.New("timed out")
	// errDiffers says that the device does not hold what was written to it.
	errDiffers = errors.New("read back differently")
	// errPoolLow says that the pool has no room for this image now.
	errPoolLow = errors.New("thin pool is low on space")
	// errDiskLow says that the file system under the archives and the database is nearly full.
	errDiskLow = errors.New("disk is low on space")
	// errDatabase says that the journal takes no events.
	errDatabase = errors.New("database cannot be written")
	// errTooSmall says that the image cannot fit its device.
	errTooSmall = errors.New("image does not fit the device")
	// errLost says that a recorded result is not there any more.
	errLost = errors.New("recorded result is gone")
)

// verdict is the pipeline's opinion on how an attempt ended.
type verdict string

const (
	accepted   verdict = "done"
	retry      verdict = "retry"
	halt       verdict = "halt" // the machine's fault and not the image's: it does not count
	reject     verdict = verdict(store.Rejected)
	violation  verdict = verdict(store.Violation)
	superseded verdict = verdict(store.Superseded)
	vanished   verdict = verdict(store.Vanished)
	dead       verdict = verdict(store.Dead)
)

// judgement is a verdict with its reason: class is bounded, for metrics; text is for people.
type judgement struct {
	verdict verdict
	class   string
	text    string
	delay   time.Duration

	rejection *archive.Rejection // violation: which entry
}

// judge is the one place with an opinion on errors. What it does not know is retried; attempts are bounded. Those that failed because
// the machine is not fit for any work are not counted; one that merely asks for more than there is, is.
func (p *Pipeline) judge(job *Job, err error) judgement {
	v, class := classify(err)
	if store.Unwritable(err) {
		p.condition.unwritable(err)
	}
	if v == halt && p.room() == nil {
		v = retry
	}
	failures := job.image.Failures + 1
	if v == vanished && failures == 1 { // asked once more before it is believed
		v = retry
	}
	j := judgement{verdict: v, class: class, text: err.Error()}
	errors.As(err, &j.rejection)
	if v == halt {
		j.delay = backoff(p.cfg.Backoff, 1)
	}
	if v != retry {
		return j
	}
	if failures >= p.cfg.MaxAttempts {
		j.verdict = dead
	}
	j.delay = backoff(p.cfg.Backoff, failures)
	return j
}

// classes is searched from the top; the first sentinel that matches decides. A halt is one only while the machine is not fit.
var classes = []struct {
	is      error
	verdict verdict
	class   string
}{
	{errTimeout, retry, "timeout"},
	{errDiffers, retry, "read_back"},
	{errPoolLow, halt, "pool_low"},
	{errTooSmall, reject, "device_too_small"},
	{errLost, retry, "lost"},
	{download.ErrKey, reject, "bad_key"},
	{download.ErrGone, vanished, "object_gone"},
	{download.ErrTooBig, reject, "image_too_big"},
	{download.ErrChanged, superseded, "superseded"},
	{download.ErrDenied, retry, "denied"},
	{download.ErrNoBucket, retry, "no_bucket"},
	{download.ErrShort, retry, "short_body"},
	{download.ErrMissing, retry, "blob_missing"},
	{download.ErrCorrupt, retry, "blob_corrupt"},
	{archive.ErrChanged, retry, "blob_changed"},
	{devmapper.ErrNoSpace, halt, "pool_full"},
	{devmapper.ErrReadOnly, halt, "pool_read_only"},
	{devmapper.ErrNotFound, retry, "device_lost"},
	{devmapper.ErrBusy, retry, "device_busy"},
	{devmapper.ErrExists, retry, "device_exists"},
	{store.ErrFenced, retry, "fenced"},
	{syscall.ENOSPC, halt, "disk_full"},
	{syscall.EIO, halt, "io"},
	{syscall.EROFS, halt, "io"},
	{syscall.EINVAL, retry, "invalid"}, // a device-mapper request that the kernel refuses
	{context.DeadlineExceeded, retry, "timeout"},
}

func classify(err error) (verdict, string) {
	var rejected *archive.Rejection
	if errors.As(err, &rejected) {
		if rejected.Violation {
			return violation, string(rejected.Reason)
		}
		return reject, string(rejected.Reason)
	}
	for _, c := range classes {
		if errors.Is(err, c.is) {
			return c.verdict, c.class
		}
	}
	if store.Unwritable(err) {
		return halt, "database"
	}
	if store.Busy(err) {
		return retry, "database"
	}
	return retry, string(queue.Classify(err))
}

// backoff doubles from base with every failure, up to 15 minutes, with full jitter: two consumers never march in step.
func backoff(base time.Duration, failures int) time.Duration {
	const ceiling = 15 * time.Minute
	d := base << min(failures-1, 20)
	if d > ceiling || d <= 0 {
		d = ceiling
	}
	return time.Duration(rand.Int64N(int64(d))) + time.Second
}

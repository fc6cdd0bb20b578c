package pipeline

import (
	"context"
	"errors"
	"math/rand/v2"
	"os/exec"
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
	// errDiskLow says that the file system under the archives and the database is nearly
	// full.
	errDiskLow = errors.New("disk is low on space")
	// errDatabase says that the journal takes no events.
	errDatabase = errors.New("database cannot be written")
	// errTooSmall says that the image cannot fit its device.
	errTooSmall = errors.New("image does not fit the device")
	// errLost says that a recorded result is not there any more.
	errLost = errors.New("recorded result is gone")
	// errOutage says that what fails would fail for any image.
	errOutage = errors.New("not the image's fault")
	// errCutOff says that an image is given up because processes died at it.
	errCutOff = errors.New("the process or the machine died during every attempt")
)

// verdict is the pipeline's opinion on how an attempt ended.
type verdict string

const (
	accepted   verdict = "done"
	retry      verdict = "retry"
	halt       verdict = "halt"   // the machine's fault and not the image's: it does not count
	outage     verdict = "outage" // what may fail for every image: counted only if it turns out to be the image's own
	reject     verdict = verdict(store.StateRejected)
	violation  verdict = verdict(store.StateViolation)
	superseded verdict = verdict(store.StateSuperseded)
	vanished   verdict = verdict(store.StateVanished)
	dead       verdict = verdict(store.StateDead)
)

// judgement is a verdict with its reason: class is bounded, for metrics; text is for
// people.
type judgement struct {
	verdict verdict
	class   string
	text    string
	delay   time.Duration
	fetched int64       // bytes newly on disk, of a download that failed
	doubt   store.State // retry: the end that is believed only when the next attempt finds the same

	rejection *archive.Rejection // violation: which entry
	stack     []byte             // of a panic
}

// judge is the one place with an opinion on errors. What it does not know is retried;
// attempts are bounded. Those that failed because the machine is not fit for any work, or
// by an outage, are not counted; one that merely asks for more than there is, is.
func (p *Pipeline) judge(job *Job, err error) judgement {
	v, class := classify(err)
	if store.Unwritable(err) {
		p.condition.unwritable(err)
	}
	j := judgement{verdict: v, class: class, text: err.Error(), fetched: download.Progress(err)}
	errors.As(err, &j.rejection)
	var panicked *archive.Panic
	if errors.As(err, &panicked) {
		j.stack = panicked.Stack
	}
	switch v {
	case halt:
		j.delay = backoff(p.cfg.Backoff, 1)
		if p.room() == nil {
			j.verdict = retry
		}
	case vanished, superseded:
		return p.doubt(job, j)
	case retry:
		if job.attempt.Stage == store.StageDownload && class == "timeout" { // the network's or the server's
			j = p.weigh(job, j, err)
		}
	case outage:
		j = p.weigh(job, j, err)
	case reject:
		if class == classRefused && p.breaker.outage() != nil {
			j = p.weigh(job, j, err)
		}
	}
	if j.verdict != retry {
		return j
	}
	failures := job.image.Failures + 1
	if j.fetched > 0 { // it got further: that is no step towards giving up
		failures = 0
	}
	if failures >= p.cfg.MaxAttempts {
		j.verdict = dead
	}
	j.delay = backoff(p.cfg.Backoff, failures)
	return j
}

// doubt believes what is said of an object only when two attempts in a row found the
// same, some time apart: it is said by what stands between us and S3, too.
func (p *Pipeline) doubt(job *Job, j judgement) judgement {
	if said := store.State(j.verdict); job.image.Doubt != said {
		j.doubt, j.verdict, j.delay = said, retry, backoff(p.cfg.Backoff, 1)
	}
	return j
}

// weigh decides whether a failure that may be an outage is held against the image.
func (p *Pipeline) weigh(job *Job, j judgement, err error) judgement {
	if j.class == classBusy { // whoever holds the device says nothing of others
		j.verdict, j.delay = outage, min(backoff(p.cfg.Backoff, p.breaker.again(job.image.ID)), longestOutage)
		return j
	}
	counts, n, images := p.breaker.failed(job.attempt.Stage, job.image.ID, err)
	down := job.attempt.Stage == store.StageDownload && p.breaker.outage() != nil
	if own[j.class] && images < alike {
		counts = true
	}
	if counts && !down {
		j.verdict = retry
		return j
	}
	if j.fetched > 0 {
		n = 1
	}
	j.verdict, j.delay = outage, min(backoff(p.cfg.Backoff, n), longestOutage)
	return j
}

// classBusy is a device that somebody has open: never the image's fault.
const classBusy = "device_busy"

// own are the classes that may concern one object alone while the bucket is well.
var own = map[string]bool{"denied": true, "kms": true, "short_body": true}

// classRefused is what S3 says of one object for good, while the bucket answers.
const classRefused = "refused_by_s3"

// classes is searched from the top; the first sentinel that matches decides. A halt is
// one only while the machine is not fit; an outage is weighed.
var classes = []struct {
	is      error
	verdict verdict
	class   string
}{
	{errStuck, retry, "stuck"},
	{errCutOff, dead, "cut_off"},
	{errTimeout, retry, "timeout"},
	{errDiffers, retry, "read_back"},
	{errPoolLow, halt, "pool_low"},
	{errDiskLow, halt, "disk_low"},
	{errTooSmall, reject, "device_too_small"},
	{errLost, retry, "lost"},
	{queue.ErrNoCredentials, outage, "credentials"},
	{download.ErrKey, reject, "bad_key"},
	{download.ErrGone, vanished, "object_gone"},
	{download.ErrTooBig, reject, "image_too_big"},
	{download.ErrChanged, superseded, "superseded"},
	{download.ErrDenied, outage, "denied"},
	{download.ErrCredentials, outage, "credentials"},
	{download.ErrRefused, reject, classRefused},
	{download.ErrArchived, retry, "archived"},
	{download.ErrKMS, outage, "kms"},
	{download.ErrNotS3, outage, "not_s3"},
	{download.ErrNoBucket, outage, "no_bucket"},
	{download.ErrShort, outage, "short_body"},
	{download.ErrMissing, retry, "blob_missing"},
	{download.ErrCorrupt, retry, "blob_corrupt"},
	{archive.ErrChanged, retry, "blob_changed"},
	{devmapper.ErrNoSpace, halt, "pool_full"},
	{devmapper.ErrReadOnly, halt, "pool_read_only"},
	{devmapper.ErrNotFound, retry, "device_lost"},
	{devmapper.ErrBusy, outage, classBusy},
	{devmapper.ErrExists, retry, "device_exists"},
	{store.ErrFenced, retry, "fenced"},
	{syscall.ENOSPC, halt, "disk_full"},
	{syscall.EIO, halt, "io"},
	{syscall.EROFS, halt, "io"},
	{devmapper.ErrUnavailable, outage, classMachine},
	{syscall.EPERM, outage, classMachine},
	{syscall.EACCES, outage, classMachine},
	{syscall.ENOSYS, outage, classMachine},
	{syscall.ENOMEM, outage, classMachine},
	{syscall.EMFILE, outage, classMachine},
	{syscall.ENFILE, outage, classMachine},
	{exec.ErrNotFound, outage, classMachine},
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
	var panicked *archive.Panic
	if errors.As(err, &panicked) {
		return retry, classPanic
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
	switch class := queue.Classify(err); class {
	case queue.Denied, queue.Throttled, queue.Server, queue.Network, queue.Timeout:
		return outage, string(class)
	default:
		return retry, string(class)
	}
}

// classPanic is code of ours that gave up on what it met.
const classPanic = "panic"

// classMachine is what the machine lacks for any image: a right, a tool, memory,
// descriptors.
const classMachine = "machine"

// remedy says what an operator can do about what fails for every image.
func remedy(err error) string {
	_, class := classify(err)
	switch class {
	case "denied", "credentials":
		return "see to the credentials and their policy (docs/operating.md lists the rights)"
	case "no_bucket":
		return "make the bucket, or correct S3_BUCKET and AWS_REGION"
	case "not_s3":
		return "what answers is no S3: see to proxies, load balancers and AWS_ENDPOINT_URL"
	case "network":
		return "see to DNS, routes, proxies and AWS_ENDPOINT_URL"
	case classMachine:
		return "see that the daemon runs as root with its tools on the PATH, and has memory and descriptors"
	}
	return "nothing is lost: it goes on when it is over"
}

// backoff doubles from base with every failure, up to 15 minutes, with full jitter: two
// consumers never march in step.
func backoff(base time.Duration, failures int) time.Duration {
	const ceiling = 15 * time.Minute
	d := base << min(max(failures, 1)-1, 20)
	if d > ceiling || d <= 0 {
		d = ceiling
	}
	return time.Duration(rand.Int64N(int64(d))) + time.Second
}

package pipeline

import (
	"context"
	"errors"
	"os/exec"
	"syscall"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/awserr"
	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/store"
)

var (
	// errTimeout is the cause of a stage's context when its time is up.
	errTimeout = errors.New("timed out")
	// errCutOff is why an image is given up after processes died at it.
	errCutOff = errors.New("the process or the machine died during every attempt")
)

// verdict is the pipeline's opinion on how an attempt ended.
type verdict string

const (
	accepted   verdict = "done"
	retry      verdict = "retry"
	halt       verdict = "halt"   // the machine's fault, not the image's: it does not count
	outage     verdict = "outage" // may fail for every image: it counts only if it turns out to be the image's own
	reject     verdict = verdict(store.StateRejected)
	violation  verdict = verdict(store.StateViolation)
	superseded verdict = verdict(store.StateSuperseded)
	vanished   verdict = verdict(store.StateVanished)
	dead       verdict = verdict(store.StateDead)
)

// classBusy is the class of a device open elsewhere: never the image's fault.
const classBusy = "device_busy"

// ownClasses are the classes that may concern one object alone while the bucket is well.
var ownClasses = map[string]bool{"denied": true, "kms": true, "short_body": true}

// classRefused is the class of S3's final refusal of one object, while the bucket
// answers.
const classRefused = "refused_by_s3"

// classes is searched from the top, and the first sentinel that matches decides. A halt
// stays one only while the machine is not fit. An outage is weighed.
var classes = []struct {
	target  error
	verdict verdict
	class   string
}{
	{errStuck, retry, "stuck"},
	{errCutOff, dead, "cut_off"},
	{errTimeout, retry, "timeout"},
	{provision.ErrReadBack, retry, "read_back"},
	{provision.ErrPoolLow, halt, "pool_low"},
	{provision.ErrDiskLow, halt, "disk_low"},
	{provision.ErrTooSmall, reject, "device_too_small"},
	{provision.ErrResultLost, retry, "lost"},
	{awserr.ErrNoCredentials, outage, "credentials"},
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
	{syscall.EINVAL, retry, "invalid"}, // a device-mapper request refused by the kernel
	{context.DeadlineExceeded, retry, "timeout"},
}

// classify finds the verdict of an error by itself, and its class for the metrics.
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
		if errors.Is(err, c.target) {
			return c.verdict, c.class
		}
	}
	if store.Unwritable(err) {
		return halt, "database"
	}
	if store.Busy(err) {
		return retry, "database"
	}
	switch class := awserr.Classify(err); class {
	case awserr.Credentials, awserr.Denied, awserr.Throttled, awserr.Server, awserr.Network, awserr.Timeout:
		return outage, string(class)
	default:
		return retry, string(class)
	}
}

// classPanic is the class of a panic in our own code.
const classPanic = "panic"

// classMachine is the class of what the machine lacks for any image: a right, a tool,
// memory, descriptors.
const classMachine = "machine"

// remedy says what an operator can do about what fails for every image.
func remedy(err error) string {
	_, class := classify(err)
	switch class {
	case "denied", "credentials":
		return "see to the credentials and their policy (docs/deployment.md lists the rights)"
	case "kms":
		return "see to the key of the objects: enabled, and with the right kms:Decrypt"
	case classBusy:
		return "end whoever has the device open"
	case "no_bucket":
		return "make the bucket, or correct S3_BUCKET and AWS_REGION"
	case "not_s3":
		return "what answers is not S3: see to proxies, load balancers and AWS_ENDPOINT_URL"
	case "network":
		return "see to DNS, routes, proxies and AWS_ENDPOINT_URL"
	case classMachine:
		return "see that the daemon runs as root with its tools on the PATH, and has memory and descriptors"
	}
	return "nothing is lost: it goes on when it is over"
}

// Package download fetches one S3 object into one local file, the blob, and checks later
// that the blob is unchanged.
//
// A blob is written under a temporary name and hashed on the way. It gets its own name
// only when all of it is on disk: a file under its final name is complete, whatever
// happened to the process. The request is pinned to the notified version or ETag, so an
// object overwritten in the meantime is an error and not other bytes.
//
// A large object is fetched in parts, several at once, and its progress is saved in a
// file beside the temporary one. An interrupted download resumes there and requests less
// than one window of parts again. If the S3 or the saved progress is odd in any way, the
// whole object is fetched by one request. All downloads share a number of requests,
// fairly, and with it the memory for bodies.
//
// The package knows nothing about images and has no opinion on its errors: it neither
// logs nor counts. It repeats requests whose connection broke, a few times; other retries
// are made by the SDK's client. It expects to be the only user of its directory, with at
// most one Fetch for a name at any time.
package download

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"imagemanager.internal/internal/durable"
	"imagemanager.internal/internal/failpoint"
)

const (
	// DefaultMaxBytes is the default limit for the size of an object: 10 GiB.
	DefaultMaxBytes = 10 << 30
	// DefaultStall is the default limit for the time without a byte.
	DefaultStall = 30 * time.Second
	// DefaultPart is the default size of one request of a large object: 8 MiB. AWS
	// advises 8 to 16 MiB.
	DefaultPart = 8 << 20
	// DefaultConnections is the default number of bodies of a large object that are read
	// at once.
	DefaultConnections = 8
	// DefaultRequests is the default number of requests of all objects at once. Five
	// objects have five each.
	DefaultRequests = 25
	// DefaultPause is the default pause between a broken connection and the first retry.
	DefaultPause = 100 * time.Millisecond
	// tempSuffix marks the file of an incomplete blob.
	tempSuffix = ".part"
)

// API is the part of the S3 client used by a Downloader. [s3.Client] implements it.
type API interface {
	GetObject(ctx context.Context, in *s3.GetObjectInput, opts ...func(*s3.Options)) (*s3.GetObjectOutput, error)
	HeadObject(ctx context.Context, in *s3.HeadObjectInput, opts ...func(*s3.Options)) (*s3.HeadObjectOutput, error)
}

// Config configures a Downloader. Only Dir is required.
type Config struct {
	Dir          string        // directory of the blobs, created with mode 0700 if missing
	MaxBytes     int64         // largest object accepted, in bytes; 0 means DefaultMaxBytes
	StallTimeout time.Duration // longest time without a byte, also before the first; 0 means DefaultStall
	Part         int64         // bytes per request of a large object (two parts or more); 0 means DefaultPart
	Connections  int           // bodies of a large object read at once; 0 means DefaultConnections
	Requests     int           // requests of all objects at once; 0 means DefaultRequests
	// before the first retry after a broken connection; doubled each time; 0 means
	// DefaultPause
	Pause time.Duration

	Observer Observer
}

// Object is the object to fetch, as notified.
type Object struct {
	Bucket, Key string
	VersionID   string // pins the request if set; "null" counts as not set
	// pins the request if there is no version, and is compared with the answer's; quotes
	// do not matter
	ETag string
	Size int64 // in bytes; 0 if not known
}

// Blob is one complete local file.
type Blob struct {
	Path      string
	SHA256    string // lower-case hex
	Size      int64  // in bytes
	Inode     uint64
	ModTime   time.Time
	ETag      string // as S3 answered, without quotes
	VersionID string // as S3 answered: empty in a bucket without versions, and for an object from before versioning
}

// Downloader fetches objects into one directory. Its methods may be called concurrently
// for different names.
type Downloader struct {
	api    API
	cfg    Config
	budget *budget
}

// New creates the directory if it is missing, and restricts it to its owner. An error
// keeps its errno.
func New(api API, cfg Config) (*Downloader, error) {
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = DefaultMaxBytes
	}
	if cfg.StallTimeout <= 0 {
		cfg.StallTimeout = DefaultStall
	}
	if cfg.Part <= 0 {
		cfg.Part = DefaultPart
	}
	if cfg.Connections <= 0 {
		cfg.Connections = DefaultConnections
	}
	if cfg.Requests <= 0 {
		cfg.Requests = DefaultRequests
	}
	if cfg.Pause <= 0 {
		cfg.Pause = DefaultPause
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("blob directory: %w", err)
	}
	cfg.Dir = dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("blob directory: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("blob directory: %w", err)
	}
	if err := durable.SyncDir(filepath.Dir(dir)); err != nil {
		return nil, fmt.Errorf("blob directory: %w", err)
	}
	return &Downloader{
		api: observedAPI{api, cfg.Observer}, cfg: cfg, budget: &budget{free: cfg.Requests},
	}, nil
}

// Fetch downloads the object to the file name in the directory and returns it when it is
// durable: file, name and directory are synchronised. It replaces an earlier blob of that
// name.
//
// After any error no blob of that name remains. Its temporary file remains only if the
// next Fetch of that name and object can resume from it. After a crash the temporary file
// may remain, and List shows it.
//
// onProgress may be nil. It is called in this goroutine, several times a second, with the
// bytes fetched so far and the bytes expected (0 if S3 did not say). The download waits
// for it. A retry of a small object begins at 0 again.
//
// Errors are ErrGone, ErrNoBucket, ErrDenied, ErrCredentials, ErrRefused, ErrArchived,
// ErrKMS, ErrNotS3, ErrChanged, ErrTooBig, ErrShort, ErrCorrupt and ErrStalled, the cause
// of ctx if it ended, the errno of a disk error, and other errors of the S3 client.
// ErrGone, ErrChanged, ErrTooBig and ErrRefused come from S3 itself, never from a server
// on the way. See also Scope and Progress.
func (d *Downloader) Fetch(ctx context.Context, name string, obj Object, onProgress func(done, total int64)) (blob Blob,
	err error,
) {
	if err := checkName(name); err != nil || strings.HasSuffix(name, tempSuffix) ||
		strings.HasSuffix(name, stateSuffix) {
		return Blob{}, fmt.Errorf("blob name %q: %w", name, fs.ErrInvalid)
	}
	defer func() {
		if err != nil {
			blob, err = Blob{}, errors.Join(err, d.cleanUp(name, err))
		}
	}()
	if obj.Size > d.cfg.MaxBytes {
		return Blob{}, fmt.Errorf("%w: notified as %d bytes, the limit is %d", ErrTooBig, obj.Size, d.cfg.MaxBytes)
	}
	ctx, wd, stop := watchStall(ctx, d.cfg.StallTimeout)
	defer stop()
	blob, err = d.fetch(ctx, wd, name, obj, onProgress)
	err = withCause(ctx, err)
	d.cfg.Observer.ended(err)
	return blob, err
}

// fetch is Fetch under a watchdog.
func (d *Downloader) fetch(ctx context.Context, wd *watchdog, name string, obj Object,
	onProgress func(done, total int64),
) (Blob, error) {
	path := filepath.Join(d.cfg.Dir, name)
	if obj.Size >= 2*d.cfg.Part {
		id, confirmed, err := d.headIdentity(ctx, wd, obj)
		if err != nil && Scope(err) == AllObjects && hasProgress(path) {
			return Blob{}, err // it passes; one request for the whole would discard the saved progress
		}
		if confirmed {
			blob, err := d.fetchParts(ctx, wd, path, id, onProgress)
			if !errors.Is(err, errNoRanges) {
				return blob, err
			}
		}
	}
	for try := 1; ; try++ {
		blob, err := d.fetchWhole(ctx, wd, path, obj, onProgress)
		if try == wholeTries || !d.pauseForRetry(ctx, try, err) {
			return blob, err
		}
	}
}

// fetchWhole fetches an object by one request.
func (d *Downloader) fetchWhole(ctx context.Context, wd *watchdog, path string, obj Object,
	onProgress func(done, total int64),
) (Blob, error) {
	one := share{budget: d.budget, limit: 1}
	place, err := one.acquire(ctx)
	if err != nil {
		return Blob{}, err
	}
	defer place.end()
	wd.arm()
	out, err := d.api.GetObject(ctx, getInput(obj),
		func(o *s3.Options) { o.DisableLogOutputChecksumValidationSkipped = true })
	wd.disarm()
	if err != nil {
		return Blob{}, translate(err)
	}
	defer out.Body.Close()
	total, err := d.checkAnswer(out, obj)
	if err != nil {
		return Blob{}, err
	}
	b := body{
		r: out.Body, watchdog: wd, total: total, limit: d.cfg.MaxBytes, onProgress: onProgress,
		received: d.cfg.Observer.received,
	}
	blob, err := spool(ctx, path+tempSuffix, b, getChecksum(out))
	if err != nil {
		return Blob{}, err
	}
	blob.ETag, blob.VersionID = etag(out.ETag), versionID(out.VersionId)
	return publish(path, blob)
}

// fetchParts fetches an object, or the missing parts of it, by many requests.
func (d *Downloader) fetchParts(ctx context.Context, wd *watchdog, path string, id identity,
	onProgress func(done, total int64),
) (Blob, error) {
	p, err := openPartial(path+tempSuffix, id)
	if err != nil {
		return Blob{}, err
	}
	defer p.close()
	resumed := p.offset
	d.cfg.Observer.resumed(resumed)
	w := newWindow(d, wd, p)
	if err := w.fetchAll(ctx, onProgress); err != nil {
		return Blob{}, withProgress(err, p.offset-resumed)
	}
	blob, err := p.finish()
	if err != nil {
		return Blob{}, err
	}
	// Before the rename: List shows a state without its file as a temporary file, here
	// beside a complete blob.
	if err := os.Remove(path + tempSuffix + stateSuffix); err != nil {
		return Blob{}, err
	}
	return publish(path, blob)
}

// publish gives the complete temporary file its final name.
func publish(path string, blob Blob) (Blob, error) {
	failpoint.Here("before", "rename", "blob")
	if err := os.Rename(path+tempSuffix, path); err != nil {
		return Blob{}, err
	}
	failpoint.Here("after", "rename", "blob")
	blob.Path = path
	return blob, durable.SyncDir(filepath.Dir(path))
}

// cleanUp removes the files of a failed download, unless the next one can resume from
// them.
func (d *Downloader) cleanUp(name string, failure error) error {
	path := filepath.Join(d.cfg.Dir, name)
	if !hasProgress(path) || !resumable(failure) {
		return d.Remove(name)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return durable.SyncDir(d.cfg.Dir)
}

// resumable reports whether the failure leaves both object and disk usable for another
// attempt.
func resumable(failure error) bool {
	for _, is := range []error{ErrGone, ErrChanged, ErrTooBig, ErrCorrupt} {
		if errors.Is(failure, is) {
			return false
		}
	}
	var file *fs.PathError // a failed connection would be a net.OpError
	return !errors.As(failure, &file)
}

// Package download brings one S3 object into one local file, the blob, and says later
// whether the blob is still what it was.
//
// A blob is written under a temporary name, with its SHA-256 taken on the way, and gets
// its own name only when all of it is on disk: a file under its final name is complete,
// whatever happened to the process. The request is pinned to the version or the ETag that
// was notified, so that an object overwritten meanwhile is an error and not other bytes.
//
// A large object comes in parts, several at once, and its progress is kept in a file
// beside the temporary one: a download that was cut off or killed goes on where it was,
// and asks for less than one window of parts again. Whatever is odd about the S3 or about
// what was left behind makes it one request for the whole object.
//
// The package knows no images and has no opinion on its errors: it neither logs nor
// counts. It asks again for bytes whose connection broke, a few times; what else is worth
// another request the SDK's client knows. It expects to be the only user of its
// directory, with at most one Fetch for a name at any time.
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
	// DefaultMaxBytes is the largest object taken unless configured otherwise: 10 GiB.
	DefaultMaxBytes = 10 << 30
	// DefaultStall is how long a download may go without a byte unless configured
	// otherwise.
	DefaultStall = 30 * time.Second
	// DefaultPart is how much one request of a large object asks for unless configured
	// otherwise: 8 MiB. AWS advises 8 to 16 MiB.
	DefaultPart = 8 << 20
	// DefaultConnections is how many requests a large object has under way at once unless
	// configured otherwise.
	DefaultConnections = 5
	// DefaultPause is how long a broken connection is left alone before the first try
	// again unless configured otherwise.
	DefaultPause = 100 * time.Millisecond
	// tempSuffix marks the file that a blob is written to before it is complete.
	tempSuffix = ".part"
)

// API is the part of the S3 client that is used; [s3.Client] has it.
type API interface {
	GetObject(ctx context.Context, in *s3.GetObjectInput, opts ...func(*s3.Options)) (*s3.GetObjectOutput, error)
	HeadObject(ctx context.Context, in *s3.HeadObjectInput, opts ...func(*s3.Options)) (*s3.HeadObjectOutput, error)
}

// Config says where blobs go and what is refused.
type Config struct {
	Dir          string        // directory of the blobs, made with mode 0700 where it is missing
	MaxBytes     int64         // largest object taken, in bytes; 0 means DefaultMaxBytes
	StallTimeout time.Duration // longest time without a byte, also before the first; 0 means DefaultStall
	Part         int64         // bytes a request of a large object; 0 means DefaultPart. Two parts and more are large
	Connections  int           // requests of a large object at once; 0 means DefaultConnections
	// before what a broken connection did not bring is asked for again; doubled each
	// time; 0 means DefaultPause
	Pause time.Duration
}

// Object names what to fetch, as it was notified.
type Object struct {
	Bucket, Key string
	VersionID   string // pins the request when set; "null" is none
	// pins the request when there is no version, and is compared with the answer's;
	// quotes do not matter
	ETag string
	Size int64 // in bytes; 0 means that it is not known
}

// Blob is one complete local file.
type Blob struct {
	Path      string
	SHA256    string // lower-case hex
	Size      int64  // in bytes
	Inode     uint64
	ModTime   time.Time
	ETag      string // as S3 answered, without quotes
	VersionID string // as S3 answered: empty in a bucket without versions, and for an object older than them
}

// Downloader fetches objects into one directory. Its methods may be called at once for
// different names.
type Downloader struct {
	api API
	cfg Config
}

// New makes the directory where it is missing and takes its permissions back from
// everyone but the owner. An error keeps its errno.
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
	return &Downloader{api: api, cfg: cfg}, nil
}

// Fetch downloads the object to the file name in the directory and returns it when it is
// durable: file, name and directory are synchronised. A blob of that name from before is
// replaced.
//
// After any error no blob of that name remains. Its temporary file remains only if the
// next Fetch of that name and object can resume from it; otherwise, and after Remove,
// that is gone too. After a crash the temporary file may remain, and List shows it.
//
// onProgress may be nil; it is called in this goroutine with the bytes fetched so far and
// the bytes expected (0 if S3 did not say), several times a second, and holds the
// download up while it runs. A small object that is asked for again begins at 0 again.
//
// Errors are ErrGone, ErrNoBucket, ErrDenied, ErrCredentials, ErrRefused, ErrArchived,
// ErrKMS, ErrNotS3, ErrChanged, ErrTooBig, ErrShort, ErrCorrupt and ErrStalled, the cause
// of ctx where it ended, the errno of a disk error, and whatever else the S3 client
// returned. ErrGone, ErrChanged, ErrTooBig and ErrRefused are said by S3 and nobody else.
// Scope tells whom an error concerns, and Progress how far the download got.
func (d *Downloader) Fetch(ctx context.Context, name string, obj Object, onProgress func(done, total int64)) (blob Blob,
	err error,
) {
	if err := checkName(name); err != nil || strings.HasSuffix(name, tempSuffix) ||
		strings.HasSuffix(name, stateSuffix) {
		return Blob{}, fmt.Errorf("blob name %q: %w", name, fs.ErrInvalid)
	}
	defer func() {
		if err != nil {
			blob, err = Blob{}, errors.Join(err, d.clear(name, err))
		}
	}()
	if obj.Size > d.cfg.MaxBytes {
		return Blob{}, fmt.Errorf("%w: notified as %d bytes, the limit is %d", ErrTooBig, obj.Size, d.cfg.MaxBytes)
	}
	ctx, dog, stop := watch(ctx, d.cfg.StallTimeout)
	defer stop()
	blob, err = d.fetch(ctx, dog, name, obj, onProgress)
	return blob, explain(ctx, err)
}

// fetch is Fetch under a watch.
func (d *Downloader) fetch(ctx context.Context, dog *watchdog, name string, obj Object,
	onProgress func(done, total int64),
) (Blob, error) {
	path := filepath.Join(d.cfg.Dir, name)
	if obj.Size >= 2*d.cfg.Part {
		id, confirmed, err := d.look(ctx, dog, obj)
		if err != nil && Scope(err) == AllObjects && begun(path) {
			return Blob{}, err // it passes, and one request for the whole would throw away what there is
		}
		if confirmed {
			blob, err := d.fetchParts(ctx, dog, path, id, onProgress)
			if !errors.Is(err, errNoRanges) {
				return blob, err
			}
		}
	}
	for try := 1; ; try++ {
		blob, err := d.fetchWhole(ctx, dog, path, obj, onProgress)
		if try == wholeTries || !d.again(ctx, try, err) {
			return blob, err
		}
	}
}

// fetchWhole fetches an object by one request.
func (d *Downloader) fetchWhole(ctx context.Context, dog *watchdog, path string, obj Object,
	onProgress func(done, total int64),
) (Blob, error) {
	dog.listen()
	out, err := d.api.GetObject(ctx, request(obj),
		func(o *s3.Options) { o.DisableLogOutputChecksumValidationSkipped = true })
	dog.pause()
	if err != nil {
		return Blob{}, translate(err)
	}
	defer out.Body.Close()
	total, err := d.admit(out, obj)
	if err != nil {
		return Blob{}, err
	}
	b := body{r: out.Body, dog: dog, total: total, limit: d.cfg.MaxBytes, onProgress: onProgress}
	blob, err := spool(ctx, path+tempSuffix, b, ofGet(out))
	if err != nil {
		return Blob{}, err
	}
	blob.ETag, blob.VersionID = etag(out.ETag), versionID(out.VersionId)
	return publish(path, blob)
}

// fetchParts fetches an object by many requests, or what is missing of it.
func (d *Downloader) fetchParts(ctx context.Context, dog *watchdog, path string, id identity,
	onProgress func(done, total int64),
) (Blob, error) {
	p, err := openPartial(path+tempSuffix, id)
	if err != nil {
		return Blob{}, err
	}
	defer p.close()
	conns, resumed := d.cfg.Connections, p.offset
	w := window{
		d: d, dog: dog, part: p, size: d.cfg.Part, length: 2 * int64(conns) * d.cfg.Part, conns: conns,
		here: map[int64]int64{},
	}
	if err := w.fill(ctx, onProgress); err != nil {
		return Blob{}, progressed(err, p.offset-resumed)
	}
	blob, err := p.finish()
	if err != nil {
		return Blob{}, err
	}
	// Before the rename: a state without its file would be listed as a temporary file
	// beside a blob that is complete.
	if err := os.Remove(path + tempSuffix + stateSuffix); err != nil {
		return Blob{}, err
	}
	return publish(path, blob)
}

// publish gives the complete temporary file its name.
func publish(path string, blob Blob) (Blob, error) {
	failpoint.Here("before", "rename", "blob")
	if err := os.Rename(path+tempSuffix, path); err != nil {
		return Blob{}, err
	}
	failpoint.Here("after", "rename", "blob")
	blob.Path = path
	return blob, durable.SyncDir(filepath.Dir(path))
}

// clear removes what a failed download leaves, but for what the next one can resume from.
func (d *Downloader) clear(name string, failure error) error {
	path := filepath.Join(d.cfg.Dir, name)
	if !begun(path) || !resumable(failure) {
		return d.Remove(name)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return durable.SyncDir(d.cfg.Dir)
}

// resumable tells whether the object is still there to be had and the disk still there to
// have it.
func resumable(failure error) bool {
	for _, is := range []error{ErrGone, ErrChanged, ErrTooBig, ErrCorrupt} {
		if errors.Is(failure, is) {
			return false
		}
	}
	var file *fs.PathError // of a connection it would be a net.OpError
	return !errors.As(failure, &file)
}

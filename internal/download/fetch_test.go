package download

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// sentinels is every error that means something to a caller.
var sentinels = []error{ErrKey, ErrGone, ErrNoBucket, ErrDenied, ErrChanged, ErrTooBig, ErrShort, ErrMissing, ErrCorrupt, ErrStalled}

// payload is an object that does not fit one buffer.
var payload = noise(3*chunk + 5)

// object answers with the payload and these headers, name and value in turn.
func object(headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", `"`+tag+`"`)
		w.Header().Set("Content-Length", strconv.Itoa(len(payload)))
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		_, _ = w.Write(payload) // the client may have gone
	}
}

// chunked answers with no length.
func chunked(data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", `"`+tag+`"`)
		w.(http.Flusher).Flush()
		_, _ = w.Write(data)
	}
}

// cut promises the payload and hangs up halfway.
func cut(promise bool) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if promise {
			w.Header().Set("Content-Length", strconv.Itoa(len(payload)))
		}
		_, _ = w.Write(payload[:len(payload)/2])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler) //nolint:forbidigo // how a handler of net/http hangs up
	}
}

func failing(status int, code string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { refuse(w, status, code) }
}

func bare(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

func sha256Header(data []byte) string {
	sum, _ := hex.DecodeString(sumOf(data))
	return base64.StdEncoding.EncodeToString(sum)
}

func crc32Header(data []byte) string {
	sum := crc32.ChecksumIEEE(data)
	return base64.StdEncoding.EncodeToString([]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
}

func TestFetchSucceeds(t *testing.T) {
	other := []byte("other bytes")
	cases := map[string]struct {
		answer http.HandlerFunc
		size   int // as notified
	}{
		"plain":                  {object(), len(payload)},
		"size not notified":      {object(), 0},
		"no length":              {chunked(payload), 0},
		"no length, as notified": {chunked(payload), len(payload)},
		"exactly the limit":      {object(), len(payload)}, // see MaxBytes below
		"SHA-256 of S3":          {object("X-Amz-Checksum-Sha256", sha256Header(payload)), len(payload)},
		"CRC of S3":              {object("X-Amz-Checksum-Crc32", crc32Header(payload)), len(payload)},
		"composite by suffix":    {object("X-Amz-Checksum-Sha256", sha256Header(other)+"-3"), len(payload)},
		"no ETag":                {object("ETag", ""), len(payload)},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			d := downloader(t, client(t, c.answer), Config{MaxBytes: int64(len(payload))})
			write(t, filepath.Join(d.cfg.Dir, "1.tar"), "the blob from before")
			var last, total int64
			blob, err := d.Fetch(t.Context(), "1.tar", notified(c.size), func(done, of int64) {
				if done <= last {
					t.Errorf("progress went from %d to %d", last, done)
				}
				last, total = done, of
			})
			if err != nil {
				t.Fatal(err)
			}
			if blob.ETag == "" && name == "no ETag" {
				blob.ETag = tag
			}
			wantBlob(t, d, "1.tar", blob, payload)
			wantFiles(t, d, "1.tar")
			if last != int64(len(payload)) || total != last && total != int64(c.size) {
				t.Errorf("progress ended at %d of %d", last, total)
			}
		})
	}
}

func TestFetchEmptyObject(t *testing.T) {
	d := downloader(t, client(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("ETag", `"`+tag+`"`) })), Config{})
	blob, err := d.Fetch(t.Context(), "1.tar", notified(0), nil)
	if err != nil {
		t.Fatal(err)
	}
	wantBlob(t, d, "1.tar", blob, nil)
}

// Every failure has its sentinel and no other, and leaves neither blob nor temporary file, not even the blob from before.
func TestFetchFails(t *testing.T) {
	other, size, half := []byte("other bytes"), len(payload), int64(len(payload)/2)
	cases := map[string]struct {
		answer http.HandlerFunc
		size   int   // as notified
		limit  int64 // 0: the default
		want   error // nil: none of the sentinels
	}{
		"no key":                     {failing(404, "NoSuchKey"), size, 0, ErrGone},
		"no version":                 {failing(404, "NoSuchVersion"), size, 0, ErrGone},
		"delete marker":              {failing(405, "MethodNotAllowed"), size, 0, ErrGone},
		"no bucket":                  {failing(404, "NoSuchBucket"), size, 0, ErrNoBucket},
		"404 of a proxy":             {bare(404, "<html>not here</html>"), size, 0, nil},
		"404 without a body":         {bare(404, ""), size, 0, nil},
		"denied":                     {failing(403, "AccessDenied"), size, 0, ErrDenied},
		"bad signature":              {failing(403, "SignatureDoesNotMatch"), size, 0, ErrDenied},
		"403 without a body":         {bare(403, ""), size, 0, ErrDenied},
		"in an archive":              {failing(403, archived), size, 0, nil},
		"overwritten":                {failing(412, "PreconditionFailed"), size, 0, ErrChanged},
		"412 without a body":         {bare(412, ""), size, 0, ErrChanged},
		"overwritten, pin ignored":   {object("ETag", `"f0"`), size, 0, ErrChanged},
		"other size":                 {object(), size + 1, 0, ErrChanged},
		"too big by notification":    {object(), size, half, ErrTooBig},
		"too big by header":          {object(), 0, half, ErrTooBig},
		"too big while streaming":    {chunked(payload), 0, half, ErrTooBig},
		"a byte too big":             {chunked(payload), 0, int64(size) - 1, ErrTooBig},
		"cut":                        {cut(true), size, 0, ErrShort},
		"cut, size not notified":     {cut(true), 0, 0, ErrShort},
		"cut, no length":             {cut(false), 0, 0, ErrShort},
		"cut, no length, notified":   {cut(false), size, 0, ErrShort},
		"shorter than notified":      {chunked(payload[:size-1]), size, 0, ErrShort},
		"longer than notified":       {chunked(payload), size - 1, 0, ErrCorrupt},
		"SHA-256 of S3 differs":      {object("X-Amz-Checksum-Sha256", sha256Header(other)), size, 0, ErrCorrupt},
		"CRC of S3 differs":          {object("X-Amz-Checksum-Crc32", crc32Header(other)), size, 0, ErrCorrupt},
		"CRC of S3, none notified":   {object("X-Amz-Checksum-Crc32", crc32Header(other)), 0, 0, ErrCorrupt},
		"S3 is ill":                  {failing(500, "InternalError"), size, 0, nil},
		"S3 is ill without a word":   {bare(503, ""), size, 0, nil},
		"redirected without a place": {failing(301, "PermanentRedirect"), size, 0, nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			d := downloader(t, client(t, c.answer), Config{MaxBytes: c.limit})
			write(t, filepath.Join(d.cfg.Dir, "1.tar"), "the blob from before")
			write(t, filepath.Join(d.cfg.Dir, "2.tar"), "another's")
			blob, err := d.Fetch(t.Context(), "1.tar", notified(c.size), nil)
			if err == nil || blob != (Blob{}) {
				t.Fatalf("got %+v and no error", blob)
			}
			for _, s := range sentinels {
				if errors.Is(err, s) != errors.Is(c.want, s) {
					t.Errorf("%v: is %v: %t", err, s, errors.Is(err, s))
				}
			}
			wantFiles(t, d, "2.tar")
		})
	}
}

// A size that was notified as too big costs no request.
func TestTooBigIsNotAskedFor(t *testing.T) {
	d := downloader(t, fake(func(context.Context) (*s3.GetObjectOutput, error) {
		t.Error("S3 was asked")
		return nil, errStage
	}), Config{MaxBytes: 9})
	if _, err := d.Fetch(t.Context(), "1.tar", notified(10), nil); !errors.Is(err, ErrTooBig) {
		t.Errorf("%v, want ErrTooBig", err)
	}
}

// A header that says too much costs no byte of the body.
func TestTooBigIsNotRead(t *testing.T) {
	d := downloader(t, serve(10, func(context.Context) reader {
		return func([]byte) (int, error) {
			t.Error("the body was read")
			return 0, io.EOF
		}
	}), Config{MaxBytes: 9})
	if _, err := d.Fetch(t.Context(), "1.tar", Object{}, nil); !errors.Is(err, ErrTooBig) {
		t.Errorf("%v, want ErrTooBig", err)
	}
}

// An object in an archive storage class is told apart by the SDK's type.
func TestArchivedKeepsItsType(t *testing.T) {
	d := downloader(t, client(t, failing(403, archived)), Config{})
	_, err := d.Fetch(t.Context(), "1.tar", notified(1), nil)
	var state *types.InvalidObjectState
	if !errors.As(err, &state) {
		t.Errorf("%v is no InvalidObjectState", err)
	}
}

// A SHA-256 is compared here too: S3s other than Amazon's are reached by clients that do not validate. The composite checksum of a
// multipart upload is not that of the bytes.
func TestOwnChecksum(t *testing.T) {
	sum := func(data []byte) *string { s := sha256Header(data); return &s }
	garbage := "no base64"
	cases := map[string]struct {
		sum  *string
		kind types.ChecksumType
		etag string // of the object
		want error
	}{
		"none":                   {nil, "", tag, nil},
		"equal":                  {sum(payload), types.ChecksumTypeFullObject, tag, nil},
		"equal, no type":         {sum(payload), "", tag, nil},
		"differs":                {sum([]byte("x")), types.ChecksumTypeFullObject, tag, ErrCorrupt},
		"differs, in parts":      {sum([]byte("x")), types.ChecksumTypeFullObject, tag + "-2", ErrCorrupt},
		"unreadable":             {&garbage, "", tag, ErrCorrupt},
		"composite by type":      {sum([]byte("x")), types.ChecksumTypeComposite, tag + "-2", nil},
		"composite, by the ETag": {sum([]byte("x")), "", tag + "-2", nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			api := serve(len(payload), func(context.Context) reader { return once(payload) })
			with := fake(func(ctx context.Context) (out *s3.GetObjectOutput, err error) {
				out, err = api(ctx)
				out.ChecksumSHA256, out.ChecksumType, out.ETag = c.sum, c.kind, aws.String(`"`+c.etag+`"`)
				return out, err
			})
			d := downloader(t, with, Config{})
			obj := notified(len(payload))
			obj.ETag = c.etag
			if _, err := d.Fetch(t.Context(), "1.tar", obj, nil); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if c.want != nil {
				wantFiles(t, d)
			}
		})
	}
}

// What the SDK's client retries is not an error: the answer comes with the third request.
func TestFetchAfterRetries(t *testing.T) {
	var asked atomic.Int32
	d := downloader(t, client(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) < 3 {
			refuse(w, 500, "InternalError")
			return
		}
		object()(w, r)
	})), Config{})
	blob, err := d.Fetch(t.Context(), "1.tar", notified(len(payload)), nil)
	if err != nil {
		t.Fatal(err)
	}
	wantBlob(t, d, "1.tar", blob, payload)
}

// Checksums are asked for by the request itself: a client made without LoadDefaultConfig would not.
func TestRequestAsksForChecksum(t *testing.T) {
	if got := request(notified(1)).ChecksumMode; got != types.ChecksumModeEnabled {
		t.Errorf("checksum mode is %q", got)
	}
}

// The request is pinned and asks for bytes as they are stored.
func TestRequest(t *testing.T) {
	cases := map[string]struct {
		obj              Object
		ifMatch, version string
	}{
		"by ETag":            {Object{ETag: tag}, `"` + tag + `"`, ""},
		"by quoted ETag":     {Object{ETag: `"` + tag + `"`}, `"` + tag + `"`, ""},
		"by version":         {Object{VersionID: "v1", ETag: tag}, "", "v1"},
		"older than version": {Object{VersionID: "null"}, "", "null"},
		"not at all":         {Object{}, "", ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			d := downloader(t, client(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if got := r.Header.Get("If-Match"); got != c.ifMatch {
					t.Errorf("If-Match is %s, want %s", got, c.ifMatch)
				}
				if got := r.URL.Query().Get("versionId"); got != c.version {
					t.Errorf("versionId is %s, want %s", got, c.version)
				}
				if r.Method != http.MethodGet || r.URL.Path != "/"+bucket+"/"+key {
					t.Errorf("asked %s %q", r.Method, r.URL.Path)
				}
				if got := r.Header.Get("Accept-Encoding"); got == "gzip" {
					t.Error("asks for gzip: the transport would unpack it, and length and checksum not be the object's")
				}
				object("X-Amz-Version-Id", "v7", "Content-Encoding", "gzip")(w, r)
			})), Config{})
			c.obj.Bucket, c.obj.Key = bucket, key
			blob, err := d.Fetch(t.Context(), "1.tar", c.obj, nil)
			if err != nil {
				t.Fatal(err)
			}
			if blob.VersionID != "v7" {
				t.Errorf("version is %q, S3 said v7", blob.VersionID)
			}
			wantBlob(t, d, "1.tar", blob, payload)
		})
	}
}

// A name is the name of a file in the directory, or nothing is asked and nothing touched.
func TestNames(t *testing.T) {
	d := downloader(t, client(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("S3 was asked") })), Config{})
	outside := filepath.Join(filepath.Dir(d.cfg.Dir), "outside")
	write(t, outside, "keep")
	write(t, filepath.Join(d.cfg.Dir, "1.tar"), "keep")
	for _, name := range []string{"", ".", "..", "../outside", "a/b", "/etc/passwd", "./1.tar", "1.tar/", "a/..", "1.tar.part"} {
		if _, err := d.Fetch(t.Context(), name, notified(1), nil); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("Fetch to %q: %v", name, err)
		}
		if name == "1.tar.part" {
			continue
		}
		if err := d.Remove(name); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("Remove of %q: %v", name, err)
		}
	}
	wantFiles(t, d, "1.tar")
	if _, err := os.Stat(outside); err != nil {
		t.Error(err)
	}
}

// Several names at once do not disturb each other.
func TestFetchConcurrently(t *testing.T) {
	d := downloader(t, client(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(filepath.Base(r.URL.Path))
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("ETag", `"`+tag+`"`)
		_, _ = w.Write(payload[n:])
	})), Config{})
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			name := strconv.Itoa(i) + ".tar"
			blob, err := d.Fetch(t.Context(), name, Object{Bucket: bucket, Key: "images/" + strconv.Itoa(i)}, nil)
			if err != nil {
				t.Error(err)
				return
			}
			wantBlob(t, d, name, blob, payload[i:])
		})
	}
	all.Wait()
}

// once reads the data and ends.
func once(data []byte) reader {
	return func(p []byte) (int, error) {
		n := copy(p, data)
		if data = data[n:]; n == 0 {
			return 0, io.EOF
		}
		return n, nil
	}
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

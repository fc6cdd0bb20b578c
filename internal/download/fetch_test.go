package download

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// sentinels is every error that means something to a caller.
var sentinels = []error{
	ErrKey, ErrGone, ErrNoBucket, ErrDenied, ErrCredentials, ErrRefused, ErrArchived, ErrKMS, ErrNotS3, ErrChanged,
	ErrTooBig, ErrShort, ErrMissing,
	ErrCorrupt, ErrStalled, ErrToken,
}

// payload is an object that does not fit one buffer.
var payload = noise(3*bufferSize + 5)

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
		w.Header().Set("ETag", `"`+tag+`"`)
		if promise {
			w.Header().Set("Content-Length", strconv.Itoa(len(payload)))
		}
		_, _ = w.Write(payload[:len(payload)/2])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler) //nolint:forbidigo // how a handler of net/http hangs up
	}
}

// reset sends half of the payload and resets the connection.
func reset() http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", `"`+tag+`"`)
		w.Header().Set("Content-Length", strconv.Itoa(len(payload)))
		_, _ = w.Write(payload[:len(payload)/2])
		_ = http.NewResponseController(w).Flush() // the client may have gone
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		_ = conn.(*net.TCPConn).SetLinger(0)
		_ = conn.Close()
	}
}

func failing(status int, code string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { refuse(w, status, code) }
}

// requestID is the header with S3's id of a request.
const requestID = "X-Amz-Request-Id"

// bare answers with a body and these headers, name and value in turn.
func bare(status int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
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
		"no ETag":                {object("ETag", "", requestID, "1"), len(payload)},
		"no ETag notified":       {object(), len(payload)},
		"request id, no S3 else": {object("Content-Type", "text/html", "ETag", `W/"`+tag+`"`), len(payload)},
		"an HTML object":         {object("Content-Type", "text/html", requestID, "1"), 0},
		"a weak ETag":            {object("ETag", `W/"`+tag+`"`), len(payload)},
		"a decorated ETag":       {object("ETag", `"`+tag+`-gzip"`), len(payload)},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			d := downloader(t, client(t, c.answer), Config{MaxBytes: int64(len(payload))})
			write(t, filepath.Join(d.cfg.Dir, "1.tar"), "the blob from before")
			var last, total int64
			obj := notified(c.size)
			if name == "no ETag notified" {
				obj.ETag = ""
			}
			blob, err := d.Fetch(t.Context(), "1.tar", obj, func(done, of int64) {
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
	d := downloader(t, client(t,
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("ETag", `"`+tag+`"`) })),
		Config{})
	blob, err := d.Fetch(t.Context(), "1.tar", notified(0), nil)
	if err != nil {
		t.Fatal(err)
	}
	wantBlob(t, d, "1.tar", blob, nil)
}

// Every failure has its sentinel and no other, and leaves neither blob nor temporary
// file, not even the blob from before.
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
		"404 of S3 without a word":   {bare(404, "", requestID, "1"), size, 0, nil},
		"denied":                     {failing(403, "AccessDenied"), size, 0, ErrDenied},
		"bad signature":              {failing(403, "SignatureDoesNotMatch"), size, 0, ErrCredentials},
		"unknown key id":             {failing(403, "InvalidAccessKeyId"), size, 0, ErrCredentials},
		"expired token":              {failing(400, "ExpiredToken"), size, 0, ErrCredentials},
		"clock is wrong":             {failing(403, "RequestTimeTooSkewed"), size, 0, ErrCredentials},
		"401 of S3 without a body":   {bare(401, "", requestID, "1"), size, 0, ErrCredentials},
		"403 of S3 without a body":   {bare(403, "", requestID, "1"), size, 0, ErrDenied},
		"in an archive":              {failing(403, "InvalidObjectState"), size, 0, ErrArchived},
		"a customer's key":           {failing(400, "InvalidRequest"), size, 0, ErrRefused},
		"KMS key disabled":           {failing(400, "KMS.DisabledException"), size, 0, ErrKMS},
		"a code of no meaning":       {failing(400, "InvalidArgument"), size, 0, nil},
		"overwritten":                {failing(412, "PreconditionFailed"), size, 0, ErrChanged},
		"412 of S3 without a body":   {bare(412, "", requestID, "1"), size, 0, ErrChanged},
		"overwritten, pin ignored":   {object("ETag", `"f0"`, requestID, "1"), size, 0, ErrChanged},
		"same ETag, other size":      {object(), size + 1, 0, ErrNotS3},
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
		"reset":                      {reset(), size, 0, ErrShort},
		"SHA-256 of S3 differs":      {object("X-Amz-Checksum-Sha256", sha256Header(other)), size, 0, ErrCorrupt},
		"CRC of S3 differs":          {object("X-Amz-Checksum-Crc32", crc32Header(other)), size, 0, ErrCorrupt},
		"CRC of S3, none notified":   {object("X-Amz-Checksum-Crc32", crc32Header(other)), 0, 0, ErrCorrupt},
		"S3 is ill":                  {failing(500, "InternalError"), size, 0, nil},
		"S3 is ill without a word":   {bare(503, ""), size, 0, nil},
		"redirected without a place": {failing(301, "PermanentRedirect"), size, 0, nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			d := downloader(t, client(t, c.answer), Config{MaxBytes: c.limit, Pause: time.Millisecond})
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
	d := downloader(t, client(t, failing(403, "InvalidObjectState")), Config{})
	_, err := d.Fetch(t.Context(), "1.tar", notified(1), nil)
	var state *types.InvalidObjectState
	if !errors.As(err, &state) {
		t.Errorf("%v is not an InvalidObjectState", err)
	}
}

// A SHA-256 is compared here too: S3s other than Amazon's are reached by clients that do
// not validate. The composite checksum of a multipart upload is not that of the bytes.
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

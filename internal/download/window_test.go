package download

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Every byte is asked for once; less than two parts come by one request.
func TestParts(t *testing.T) {
	cases := map[string]struct {
		size, spans int
	}{
		"a byte less than two parts": {2*part - 1, 0},
		"two parts":                  {2 * part, 2},
		"two parts and a byte":       {2*part + 1, 3},
		"many windows":               {5*wide - 7, 5 * wide / part},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			o := &origin{t: t, data: noise(c.size)}
			d := downloader(t, client(t, o), small())
			write(t, filepath.Join(d.cfg.Dir, "1.tar"), "the blob from before")
			var last int64
			blob, err := d.Fetch(t.Context(), "1.tar", notified(c.size), func(done, total int64) {
				if done <= last || total != int64(c.size) {
					t.Errorf("progress went from %d to %d of %d", last, done, total)
				}
				last = done
			})
			if err != nil {
				t.Fatal(err)
			}
			wantBlob(t, d, "1.tar", blob, o.data)
			wantClean(t, blob.Path)
			wantFiles(t, d, "1.tar")
			if len(o.spans) != c.spans || o.wholes() != map[bool]int{true: 1}[c.spans == 0] || last != int64(c.size) {
				t.Errorf("%d ranges and %d whole requests, progress ended at %d", len(o.spans), o.wholes(), last)
			}
			if n := o.asked(); c.spans > 0 && n != int64(c.size) {
				t.Errorf("%d bytes asked for, of %d", n, c.size)
			}
		})
	}
}

// An object that is pinned by nothing is pinned by what HEAD says; a version pins by
// itself and S3's answer is told.
func TestPartsArePinned(t *testing.T) {
	for name, obj := range map[string]Object{
		"not at all": {}, "by version": {VersionID: "v1"},
		"by ETag": {ETag: tag},
	} {
		t.Run(name, func(t *testing.T) {
			o := &origin{t: t, data: noise(wide)}
			o.head = func(w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("X-Amz-Version-Id", "v7")
				if r.Header.Get("X-Amz-Checksum-Mode") != "ENABLED" {
					t.Error("HEAD does not ask for checksums")
				}
				return false
			}
			o.before = func(_ http.ResponseWriter, r *http.Request, _ span) bool {
				if got := r.URL.Query().Get("versionId"); got != obj.VersionID || got != "" &&
					r.Header.Get("If-Match") != "" {
					t.Errorf("asked for version %q, want %q", got, obj.VersionID)
				}
				if r.Header.Get("X-Amz-Checksum-Mode") != "" {
					t.Error("a range asks for a checksum")
				}
				return false
			}
			d := downloader(t, client(t, o), small())
			obj.Bucket, obj.Key, obj.Size = bucket, key, wide
			blob, err := d.Fetch(t.Context(), "1.tar", obj, nil)
			if err != nil || blob.VersionID != "v7" {
				t.Fatalf("%+v, %v", blob, err)
			}
			wantBlob(t, d, "1.tar", blob, o.data)
		})
	}
}

// An S3 that is odd about HEAD or ranges is asked for the whole, whose answer decides.
func TestFallsBackToWhole(t *testing.T) {
	data := noise(2 * wide)
	headSays := func(status int, headers ...string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			for i := 0; i < len(headers); i += 2 {
				w.Header().Set(headers[i], headers[i+1])
			}
			w.WriteHeader(status)
			return true
		}
	}
	length := fmt.Sprint(len(data))
	ignore := func(_ http.ResponseWriter, r *http.Request, _ span) bool {
		r.Header.Del("Range")
		return false
	}
	shift := func(_ http.ResponseWriter, r *http.Request, s span) bool {
		if s.start >= wide {
			r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", s.start+1, s.end))
		}
		return false
	}
	noBucket := func(w http.ResponseWriter, _ *http.Request, _ span) bool {
		refuse(w, http.StatusNotFound, "NoSuchBucket")
		return true
	}
	cases := map[string]struct {
		head   func(http.ResponseWriter, *http.Request) bool
		before func(http.ResponseWriter, *http.Request, span) bool
		want   error
	}{
		"HEAD refused":       {headSays(403), nil, nil},
		"HEAD unknown":       {headSays(501), nil, nil},
		"HEAD without ETag":  {headSays(200, "ETag", "", "Content-Length", length), nil, nil},
		"HEAD: other ETag":   {headSays(200, "ETag", `"f0"`, "Content-Length", length), nil, nil},
		"HEAD: other size":   {headSays(200, "Content-Length", "7"), nil, nil},
		"ranges ignored":     {nil, ignore, nil},
		"ranges off by one":  {nil, shift, nil},
		"HEAD finds nothing": {headSays(404), noBucket, ErrNoBucket},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			o := &origin{t: t, data: data, head: c.head, before: c.before}
			d := downloader(t, client(t, o), small())
			blob, err := d.Fetch(t.Context(), "1.tar", notified(len(data)), nil)
			if !errors.Is(err, c.want) || errors.Is(err, ErrGone) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			if n := o.wholes(); n != 1 {
				t.Errorf("%d requests for the whole object", n)
			}
			if err != nil {
				wantFiles(t, d)
				return
			}
			wantBlob(t, d, "1.tar", blob, data)
			wantFiles(t, d, "1.tar")
		})
	}
}

// A part that fails fails the download. What the next one can use stays, what it cannot
// goes.
func TestPartFails(t *testing.T) {
	data := noise(4 * wide)
	answer := func(status int, code string) func(http.ResponseWriter, span) {
		return func(w http.ResponseWriter, _ span) { refuse(w, status, code) }
	}
	cases := map[string]struct {
		answer func(w http.ResponseWriter, s span)
		want   error
		keep   bool
	}{
		"overwritten":  {answer(412, "PreconditionFailed"), ErrChanged, false},
		"deleted":      {answer(404, "NoSuchKey"), ErrGone, false},
		"denied":       {answer(403, "AccessDenied"), ErrDenied, true},
		"S3 is ill":    {answer(503, "SlowDown"), nil, true},
		"cut":          {func(w http.ResponseWriter, s span) { short(w, s, data) }, ErrShort, true},
		"no such page": {answer(404, "Whatever"), nil, true},
		"page": {
			func(w http.ResponseWriter, _ span) { w.Header().Del("ETag"); fmt.Fprint(w, page) }, ErrNotS3,
			true,
		},
		"page, ETag": {
			func(w http.ResponseWriter, _ span) { w.Header().Set("ETag", `"f0"`); fmt.Fprint(w, page) },
			ErrNotS3, true,
		},
		"other ETag": {func(w http.ResponseWriter, _ span) {
			w.Header().Set("ETag", `"f0"`)
			w.Header().Set(requestID, "1")
			w.WriteHeader(http.StatusPartialContent)
		}, ErrChanged, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			o := &origin{t: t, data: data}
			o.before = func(w http.ResponseWriter, _ *http.Request, s span) bool {
				if s.start < 2*wide {
					return false
				}
				c.answer(w, s)
				return true
			}
			d := downloader(t, client(t, o), small())
			write(t, filepath.Join(d.cfg.Dir, "1.tar"), "the blob from before")
			_, err := d.Fetch(t.Context(), "1.tar", notified(len(data)), nil)
			for _, s := range sentinels {
				if err == nil || errors.Is(err, s) != errors.Is(c.want, s) {
					t.Errorf("%v: is %v: %t", err, s, errors.Is(err, s))
				}
			}
			if !c.keep {
				wantFiles(t, d)
				return
			}
			wantFiles(t, d, "1.tar.part")
			if err := d.Remove("1.tar"); err != nil {
				t.Error(err)
			}
			if left, err := os.ReadDir(d.cfg.Dir); err != nil || len(left) > 0 {
				t.Errorf("Remove leaves %v, %v", left, err)
			}
		})
	}
}

// short answers a range with a few bytes of what it promises.
func short(w http.ResponseWriter, s span, data []byte) {
	w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", s.start, s.end-1, len(data)))
	w.Header().Set("Content-Length", fmt.Sprint(s.end-s.start))
	w.WriteHeader(http.StatusPartialContent)
	_, _ = w.Write(data[s.start : s.start+100])
}

// S3's checksum of the whole is compared, whatever the parts came from.
func TestPartsChecksum(t *testing.T) {
	data, wrong := noise(wide), noise(wide-1)
	for _, algorithm := range []string{"Sha256", "Crc64nvme", "Crc32c", "Crc32"} {
		of := func(data []byte) string { return s3Checksum(algorithm, data) }
		cases := map[string]struct {
			value, kind string
			want        error
		}{
			"right":     {of(data), "FULL_OBJECT", nil},
			"wrong":     {of(wrong), "FULL_OBJECT", ErrCorrupt},
			"nonsense":  {"nonsense", "FULL_OBJECT", ErrCorrupt},
			"composite": {of(wrong) + "-3", "COMPOSITE", nil},
			"no type":   {of(wrong), "", ErrCorrupt},
		}
		for name, c := range cases {
			t.Run(algorithm+"/"+name, func(t *testing.T) {
				o := &origin{t: t, data: data}
				o.head = func(w http.ResponseWriter, _ *http.Request) bool {
					w.Header().Set("X-Amz-Checksum-"+algorithm, c.value)
					w.Header().Set("X-Amz-Checksum-Type", c.kind)
					return false
				}
				// Some S3s send the object's checksum with a range; it must not be held
				// against the range.
				o.before = func(w http.ResponseWriter, _ *http.Request, _ span) bool {
					w.Header().Set("X-Amz-Checksum-"+algorithm, c.value)
					return false
				}
				d := downloader(t, client(t, o), small())
				blob, err := d.Fetch(t.Context(), "1.tar", notified(wide), nil)
				if !errors.Is(err, c.want) {
					t.Fatalf("%v, want %v", err, c.want)
				}
				if err != nil {
					wantFiles(t, d)
					return
				}
				wantBlob(t, d, "1.tar", blob, data)
				if n := o.wholes(); n > 0 {
					t.Errorf("%d requests for the whole object", n)
				}
			})
		}
	}
}

// A server that says neither by type nor by suffix that a checksum is that of the parts
// is believed where it cannot be one.
func TestPartsChecksumWithoutType(t *testing.T) {
	data, wrong := noise(wide), noise(wide-1)
	for name, c := range map[string]struct {
		algorithm, kind string
		of              []byte
		inParts         bool // says the ETag
		want            error
	}{
		"SHA-256, of the parts": {algorithm: "Sha256", of: wrong, inParts: true},
		"CRC-32, of the parts":  {algorithm: "Crc32", of: wrong, inParts: true},
		"CRC-32C, of the parts": {algorithm: "Crc32c", of: wrong, inParts: true},
		"CRC-64/NVME, wrong":    {algorithm: "Crc64nvme", of: wrong, inParts: true, want: ErrCorrupt},
		"CRC-64/NVME, right":    {algorithm: "Crc64nvme", of: data, inParts: true},
		"CRC-32, with the type, wrong": {
			algorithm: "Crc32", kind: "FULL_OBJECT", of: wrong, inParts: true,
			want: ErrCorrupt,
		},
		"CRC-32, with the type, right":      {algorithm: "Crc32", kind: "FULL_OBJECT", of: data, inParts: true},
		"CRC-32, of an upload whole, wrong": {algorithm: "Crc32", of: wrong, want: ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			obj := notified(wide)
			if c.inParts {
				obj.ETag = tag + "-3"
			}
			o := &origin{t: t, data: data}
			o.head = func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("ETag", `"`+obj.ETag+`"`)
				w.Header().Set("X-Amz-Checksum-"+c.algorithm, s3Checksum(c.algorithm, c.of))
				w.Header().Set("X-Amz-Checksum-Type", c.kind)
				return false
			}
			o.before = func(w http.ResponseWriter, _ *http.Request, _ span) bool {
				w.Header().Set("ETag", `"`+obj.ETag+`"`)
				return false
			}
			d := downloader(t, client(t, o), small())
			blob, err := d.Fetch(t.Context(), "1.tar", obj, nil)
			if !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			if err == nil && blob.SHA256 != sumOf(data) {
				t.Errorf("%+v: other bytes", blob)
			}
			if n := o.wholes(); n > 0 {
				t.Errorf("%d requests for the whole object", n)
			}
		})
	}
}

// The check value of CRC-64/NVME in the catalogue of parametrised CRC algorithms.
func TestNVME(t *testing.T) {
	h := checksum{Algorithm: "CRC64NVME"}.newHash()
	_, _ = io.WriteString(h, "123456789")
	if got := fmt.Sprintf("%x", h.Sum(nil)); got != "ae8b14860a799888" {
		t.Errorf("CRC-64/NVME of 123456789 is %s", got)
	}
}

// parts is an S3 in memory, for tests in a bubble; get may do what it likes before a
// range is answered.
type parts struct {
	data []byte
	get  func(ctx context.Context, s span) error     // nil: nothing
	body func(ctx context.Context, s span) io.Reader // nil: the bytes
}

func (p parts) HeadObject(context.Context, *s3.HeadObjectInput, ...func(*s3.Options)) (*s3.HeadObjectOutput, error) {
	return &s3.HeadObjectOutput{ETag: aws.String(tag), ContentLength: aws.Int64(int64(len(p.data)))}, nil
}

func (p parts) GetObject(ctx context.Context, in *s3.GetObjectInput, _ ...func(*s3.Options)) (*s3.GetObjectOutput,
	error,
) {
	s := span{end: int64(len(p.data))}
	if in.Range != nil {
		if _, err := fmt.Sscanf(*in.Range, "bytes=%d-%d", &s.start, &s.end); err != nil {
			return nil, err
		}
		s.end++
	}
	if p.get != nil {
		if err := p.get(ctx, s); err != nil {
			return nil, err
		}
	}
	body := io.Reader(bytes.NewReader(p.data[s.start:s.end]))
	if p.body != nil {
		body = p.body(ctx, s)
	}
	return &s3.GetObjectOutput{
		ETag: aws.String(tag), ContentRange: aws.String(fmt.Sprintf("bytes %d-%d/%d", s.start, s.end-1, len(p.data))),
		ContentLength: aws.Int64(s.end - s.start), Body: io.NopCloser(body),
	}, nil
}

// counting is an S3 that counts the answers that are being waited for or read.
type counting struct {
	API
	busy, most atomic.Int64
}

func (c *counting) GetObject(ctx context.Context, in *s3.GetObjectInput,
	opts ...func(*s3.Options),
) (*s3.GetObjectOutput, error) {
	now := c.busy.Add(1)
	for old := c.most.Load(); now > old && !c.most.CompareAndSwap(old, now); old = c.most.Load() {
	}
	out, err := c.API.GetObject(ctx, in, opts...)
	if err == nil {
		out.Body = closing{out.Body, func() { c.busy.Add(-1) }}
	}
	return out, err
}

type closing struct {
	io.Reader
	closed func()
}

func (c closing) Close() error {
	c.closed()
	return nil
}

// As many bodies as are allowed are read at once, and no more; a few requests wait for
// their answers besides; every answer is closed.
func TestConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := noise(3 * wide)
		api := newPaced(data, time.Second, time.Second)
		blob, err := downloader(t, api, small()).Fetch(t.Context(), "1.tar", notified(len(data)), nil)
		if err != nil || blob.SHA256 != sumOf(data) {
			t.Fatalf("%+v, %v", blob, err)
		}
		if bodies, left := api.most.Load(), api.busy.Load(); bodies != conns || left != 0 {
			t.Errorf("%d bodies at once, want %d; %d not closed", bodies, conns, left)
		}
		if requests := api.counting.most.Load(); requests != conns+ahead {
			t.Errorf("%d requests at once, want %d", requests, conns+ahead)
		}
	})
}

// A part that does not come holds the window, and nothing is asked for beyond it; when
// all wait for it, it is a stall. The parts that did come are kept as far as they are in
// order.
func TestWindowWaitsForItsFirstPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var farthest int64
		const mute = 4 * part
		d := downloader(t, parts{data: noise(5 * wide), get: func(ctx context.Context, s span) error {
			mu.Lock()
			farthest = max(farthest, s.end)
			mu.Unlock()
			if s.start != mute {
				<-time.After(time.Second)
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}}, Config{Part: part, Connections: conns, StallTimeout: 10 * time.Second})
		_, err := d.Fetch(t.Context(), "1.tar", notified(5*wide), nil)
		if !errors.Is(err, ErrStalled) {
			t.Errorf("%v, want ErrStalled", err)
		}
		if farthest != mute+wide {
			t.Errorf("asked for bytes up to %d, want %d", farthest, mute+wide)
		}
		wantFiles(t, d, "1.tar.part")
	})
}

// Progress that cannot be saved is an error, not a download without progress.
func TestFollowerFails(t *testing.T) {
	data := noise(3 * wide)
	api := parts{data: data, get: func(context.Context, span) error { return nil }}
	d := downloader(t, api, small())
	p, err := beginPartial(filepath.Join(d.cfg.Dir, "1.tar.part"), identity{ETag: tag, Size: int64(len(data))})
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	p.state.Close()
	ctx, wd, stop := watchStall(t.Context(), time.Minute)
	defer stop()
	w := newWindow(d, wd, p)
	if err := w.fetchAll(ctx, nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("%v, want that the state file is closed", err)
	}
}

// Slow but alive on every connection is no stall, nor is a reader of the progress that
// takes its time.
func TestSlowPartsAreNoStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := noise(2 * wide)
		d := downloader(t, parts{data: data, get: func(ctx context.Context, _ span) error {
			<-time.After(9 * time.Second)
			return ctx.Err()
		}}, Config{Part: part, Connections: conns, StallTimeout: 10 * time.Second})
		blob, err := d.Fetch(t.Context(), "1.tar", notified(len(data)),
			func(int64, int64) { <-time.After(time.Minute) })
		if err != nil {
			t.Fatal(err)
		}
		wantBlob(t, d, "1.tar", blob, data)
	})
}

// The end of the context ends every connection, is told by its cause, and keeps what
// there is.
func TestCancelParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := downloader(t, parts{data: noise(5 * wide), get: func(ctx context.Context, _ span) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Second):
				return nil
			}
		}}, small())
		ctx, cancel := context.WithTimeoutCause(t.Context(), 4500*time.Millisecond, errStage)
		defer cancel()
		if _, err := d.Fetch(ctx, "1.tar", notified(5*wide), nil); !errors.Is(err, errStage) {
			t.Errorf("%v, want %v", err, errStage)
		}
		wantFiles(t, d, "1.tar.part")
	})
}

// A full disk is known before the first part is asked for, and nothing stays on it.
func TestDiskFullParts(t *testing.T) {
	o := &origin{t: t, data: noise(2 * wide)}
	d := downloader(t, client(t, o),
		Config{Part: part, Connections: conns, Dir: filepath.Join(smallDisk(t, "400k"), "blobs")})
	if _, err := d.Fetch(t.Context(), "1.tar", notified(2*wide), nil); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v, want ENOSPC", err)
	}
	if n := o.asked(); n > 0 {
		t.Errorf("%d bytes were asked for", n)
	}
	wantFiles(t, d)
}

// The files beside the blob are hidden behind one name, and go with it.
func TestListFoldsState(t *testing.T) {
	d := downloader(t, nil, Config{})
	for _, f := range []string{"1.tar.part", "1.tar.part.state", "2.tar.part.state", "3.tar"} {
		write(t, filepath.Join(d.cfg.Dir, f), "x")
	}
	wantFiles(t, d, "1.tar.part", "2.tar.part", "3.tar")
	for _, name := range slices.Backward(list(t, d)) {
		if err := d.Remove(name); err != nil {
			t.Error(err)
		}
	}
	left, err := os.ReadDir(d.cfg.Dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if _, err := d.Fetch(t.Context(), "1.tar.part.state", notified(1), nil); err == nil ||
		!strings.Contains(err.Error(), "name") {
		t.Errorf("Fetch to the name of a state: %v", err)
	}
}

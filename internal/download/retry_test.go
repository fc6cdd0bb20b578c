package download

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// breaking answers a range with its first n bytes and cuts the connection, by a reset or
// in order.
func breaking(w http.ResponseWriter, s span, data []byte, n int64, reset bool) {
	w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", s.start, s.end-1, len(data)))
	w.Header().Set("Content-Length", fmt.Sprint(s.end-s.start))
	w.WriteHeader(http.StatusPartialContent)
	_, _ = w.Write(data[s.start : s.start+n]) // the client may have gone
	_ = http.NewResponseController(w).Flush()
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	if reset {
		_ = conn.(*net.TCPConn).SetLinger(0)
	}
	_ = conn.Close()
}

// A part whose body breaks is asked for again in the same attempt, and no byte that came
// before.
func TestBrokenParts(t *testing.T) {
	for name, c := range map[string]struct {
		every int64 // so many requests, one breaks
		after int64 // after so many bytes
		reset bool
	}{
		"one in five":             {every: 5, after: part / 3},
		"one in five, by a reset": {every: 5, after: part / 3, reset: true},
		"one in two":              {every: 2, after: 7},
		"before the first byte":   {every: 3},
		"before the last byte":    {every: 3, after: part - 1},
		"all, a sixth at a time":  {every: 1, after: part / 6},
	} {
		t.Run(name, func(t *testing.T) {
			o := &origin{t: t, data: noise(40 * part)}
			var asked, again atomic.Int64
			o.before = func(w http.ResponseWriter, _ *http.Request, s span) bool {
				if asked.Add(1)%c.every != 0 || s.end-s.start <= c.after {
					return false
				}
				again.Add(s.end - s.start - c.after)
				breaking(w, s, o.data, c.after, c.reset)
				return true
			}
			d := downloader(t, client(t, o), small())
			blob, err := d.Fetch(t.Context(), "1.tar", notified(len(o.data)), nil)
			if err != nil {
				t.Fatal(err)
			}
			wantBlob(t, d, "1.tar", blob, o.data)
			if o.wholes() > 0 {
				t.Error("all of it was asked for")
			}
			// A reset may overtake bytes that were sent.
			if n := o.asked(); n != int64(len(o.data))+again.Load() && !c.reset {
				t.Errorf("%d bytes asked for, want %d and %d again", n, len(o.data), again.Load())
			}
		})
	}
}

// An image of 10 GiB has 1,280 parts. That one answer in a hundred breaks does not hold
// it up.
func TestManyPartsOneInAHundredBroken(t *testing.T) {
	const size = 1 << 10
	data := noise(1280 * size)
	var asked atomic.Int64
	d := downloader(t, parts{data: data, body: func(_ context.Context, s span) io.Reader {
		if asked.Add(1)%100 == 0 {
			return io.MultiReader(bytes.NewReader(data[s.start:s.start+(s.end-s.start)/2]), failingReader{})
		}
		return bytes.NewReader(data[s.start:s.end])
	}}, Config{Part: size, Connections: 5, Pause: time.Millisecond})
	blob, err := d.Fetch(t.Context(), "1.tar", notified(len(data)), nil)
	if err != nil {
		t.Fatal(err)
	}
	wantBlob(t, d, "1.tar", blob, data)
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// A connection that breaks after the last byte of a part has brought the part.
func TestBrokenAfterTheLastByte(t *testing.T) {
	data := noise(wide)
	d := downloader(t, parts{data: data, body: func(_ context.Context, s span) io.Reader {
		return io.MultiReader(bytes.NewReader(data[s.start:s.end]), failingReader{})
	}}, small())
	blob, err := d.Fetch(t.Context(), "1.tar", notified(len(data)), nil)
	if err != nil {
		t.Fatal(err)
	}
	wantBlob(t, d, "1.tar", blob, data)
}

// Tries have an end, for a part and for a whole object; S3 is not asked in a tight loop.
func TestTriesAreBounded(t *testing.T) {
	for name, c := range map[string]struct {
		size  int
		tries int64
	}{"part": {wide, partTries}, "whole": {part, wholeTries}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				data := noise(c.size)
				var asked atomic.Int64
				d := downloader(t, parts{data: data, body: func(_ context.Context, s span) io.Reader {
					if s.start > 0 {
						return bytes.NewReader(data[s.start:s.end])
					}
					asked.Add(1)
					return failingReader{}
				}}, Config{Part: part, Connections: conns})
				began := time.Now()
				_, err := d.Fetch(t.Context(), "1.tar", notified(c.size), nil)
				if !errors.Is(err, ErrShort) || asked.Load() != c.tries || Progress(err) != 0 {
					t.Errorf("asked %d times, want %d: %v", asked.Load(), c.tries, err)
				}
				if took, least := time.Since(began), DefaultPause<<(c.tries-2)/2; took < min(least, maxPause) ||
					took > time.Minute {
					t.Errorf("took %s", took)
				}
			})
		})
	}
}

// A whole object whose body breaks is asked for again, too.
func TestBrokenWhole(t *testing.T) {
	var asked atomic.Int64
	d := downloader(t, client(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) < wholeTries {
			cut(true)(w, r)
			return
		}
		object()(w, r)
	})), Config{Pause: time.Millisecond})
	blob, err := d.Fetch(t.Context(), "1.tar", notified(len(payload)), nil)
	if err != nil {
		t.Fatal(err)
	}
	wantBlob(t, d, "1.tar", blob, payload)
}

// A link so slow that no attempt has the time for one whole part: each gets further all
// the same, says so, and in the end it is there.
func TestSlowButSteady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := noise(wide)
		drip := func(ctx context.Context, s span) io.Reader {
			at := s.start
			return reader(func(p []byte) (int, error) {
				select {
				case <-ctx.Done():
					return 0, ctx.Err()
				case <-time.After(100 * time.Millisecond):
				}
				n := copy(p, data[at:min(at+1<<10, s.end)])
				if at += int64(n); n == 0 {
					return 0, io.EOF
				}
				return n, nil
			})
		}
		d := downloader(t, parts{data: data, body: drip}, small())
		var had int64
		for attempt := 1; ; attempt++ {
			ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Second, errStage)
			blob, err := d.Fetch(ctx, "1.tar", notified(len(data)), nil)
			cancel()
			if err == nil {
				wantBlob(t, d, "1.tar", blob, data)
				return
			}
			got := Progress(err)
			if !errors.Is(err, errStage) || got < 10<<10 || attempt > wide/(10<<10) {
				t.Fatalf("attempt %d brought %d bytes: %v", attempt, got, err)
			}
			p, err := resumePartial(filepath.Join(d.cfg.Dir, "1.tar.part"),
				identity{Bucket: bucket, Key: key, ETag: tag, Size: wide})
			if err != nil || p.offset != had+got {
				t.Fatalf("attempt %d said %d bytes, after %d: %+v, %v", attempt, got, had, p, err)
			}
			had = p.offset
			p.close()
		}
	})
}

// Progress is what a failure leaves, and nothing where it leaves nothing.
func TestProgress(t *testing.T) {
	data := noise(4 * wide)
	for name, c := range map[string]struct {
		answer func(w http.ResponseWriter, s span)
		want   bool
	}{
		"denied":    {func(w http.ResponseWriter, _ span) { refuse(w, 403, "AccessDenied") }, true},
		"page":      {func(w http.ResponseWriter, _ span) { w.Header().Del("ETag"); fmt.Fprint(w, page) }, true},
		"cut":       {func(w http.ResponseWriter, s span) { breaking(w, s, data, 1, false) }, true},
		"deleted":   {func(w http.ResponseWriter, _ span) { refuse(w, 404, "NoSuchKey") }, false},
		"overwrite": {func(w http.ResponseWriter, _ span) { refuse(w, 412, "PreconditionFailed") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			o := &origin{t: t, data: data}
			o.before = func(w http.ResponseWriter, _ *http.Request, s span) bool {
				if s.start >= 2*wide {
					c.answer(w, s)
				}
				return s.start >= 2*wide
			}
			d := downloader(t, client(t, o), small())
			_, err := d.Fetch(t.Context(), "1.tar", notified(len(data)), nil)
			if got := Progress(fmt.Errorf("stage: %w", err)); err == nil || (got >= wide) != c.want || got > 2*wide+
				part || got > 0 && !c.want {
				t.Errorf("progress of %d bytes: %v", got, err)
			}
		})
	}
	if got := Progress(nil) + Progress(errStage); got != 0 {
		t.Errorf("%d bytes of nothing", got)
	}
}

// After a step that failed no other is saved: the hashes have seen bytes that do not
// count.
func TestNothingIsSavedAfterAFailure(t *testing.T) {
	d := downloader(t, nil, Config{})
	data := noise(part)
	p, err := beginPartial(filepath.Join(d.cfg.Dir, "1.tar.part"), identity{ETag: tag, Size: 2 * part})
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if _, err := p.file.Write(data); err != nil {
		t.Fatal(err)
	}
	var file *fs.PathError
	for _, to := range []int64{2 * part, part} {
		if err := p.advance(to); !errors.As(err, &file) || p.offset != 0 {
			t.Errorf("to %d: %v, at %d", to, err, p.offset)
		}
	}
}

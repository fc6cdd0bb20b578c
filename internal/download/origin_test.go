package download

import (
	"bytes"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"
)

// Small numbers, so that a test has many parts: a window is 2 × conns × part.
const (
	part  = 64 << 10
	conns = 2
	wide  = 2 * conns * part
)

// origin is an S3 that answers ranges, and remembers what it was asked for.
type origin struct {
	t    testing.TB
	data []byte
	// before, if set, may answer a GET itself, which it says by true. The span is the
	// zero one where no range was asked for.
	before func(w http.ResponseWriter, r *http.Request, s span) bool
	head   func(w http.ResponseWriter, r *http.Request) bool // the same for a HEAD

	mu    sync.Mutex
	spans []span
	whole int // requests without a range
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("ETag", `"`+tag+`"`)
	if r.Method == http.MethodHead {
		if o.head == nil || !o.head(w, r) {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(o.data))
		}
		return
	}
	var s span
	if asked := r.Header.Get("Range"); asked != "" {
		if _, err := fmt.Sscanf(asked, "bytes=%d-%d", &s.start, &s.end); err != nil || r.Header.Get("If-Match")+
			r.URL.Query().Get("versionId") == "" {
			o.t.Errorf("asked for %q (%v) with If-Match %q", asked, err, r.Header.Get("If-Match"))
		}
		s.end++
	}
	o.note(s)
	if o.before == nil || !o.before(w, r, s) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(o.data))
	}
}

func (o *origin) note(s span) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s == (span{}) {
		o.whole++
		return
	}
	o.spans = append(o.spans, s)
}

// asked is how many bytes were asked for by ranges, and forgets it.
func (o *origin) asked() (n int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range o.spans {
		n += s.end - s.start
	}
	o.spans, o.whole = nil, 0
	return n
}

func (o *origin) wholes() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.whole
}

// small is a configuration with these small numbers.
func small() Config { return Config{Part: part, Connections: conns, Pause: time.Millisecond} }

// denyFrom refuses every range from that byte on: an error that the client does not retry
// and that the next attempt may not have.
func denyFrom(start int64) func(http.ResponseWriter, *http.Request, span) bool {
	return func(w http.ResponseWriter, _ *http.Request, s span) bool {
		if s.start >= start {
			refuse(w, http.StatusForbidden, "AccessDenied")
		}
		return s.start >= start
	}
}

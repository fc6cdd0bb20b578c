package emulator

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"time"
)

// codes are the error codes that both services use with a status, where one is asked for
// by status alone.
var codes = map[int]string{
	http.StatusBadRequest:          "InvalidRequest",
	http.StatusForbidden:           "AccessDenied",
	http.StatusNotFound:            "NoSuchKey",
	http.StatusPreconditionFailed:  "PreconditionFailed",
	http.StatusTooManyRequests:     "ThrottlingException",
	http.StatusInternalServerError: "InternalError",
	http.StatusServiceUnavailable:  "SlowDown",
}

// perform serves the call as the fault lets it.
func (s *Server) perform(w http.ResponseWriter, r *http.Request, call service, f Fault) {
	if f.Latency > 0 && !s.wait(r.Context(), f.Latency) {
		abort(w, false)
		return
	}
	switch {
	case f.Entries != 0:
		call.serve(w, r, f)
	case f.Status != 0:
		code := f.Code
		if code == "" {
			code = codes[f.Status]
		}
		call.refuse(w, r, &apiError{code: code, status: f.Status, message: "on demand"})
	case f.Lost:
		call.serve(discard{http.Header{}}, r, f)
		abort(w, true)
	case f.After == 0 && f.Hang:
		// a connection notices that its client went only when the request has been read
		_, _ = io.Copy(io.Discard, r.Body)
		s.hang(r.Context(), f)
		abort(w, false)
	case f.After == 0 && (f.Reset || f.Break):
		abort(w, f.Reset)
	default:
		s.shaped(w, r, call, f)
	}
}

// shaped serves the call through a writer that spoils the answer's body, if it is to.
func (s *Server) shaped(w http.ResponseWriter, r *http.Request, call service, f Fault) {
	if f.After == 0 && f.Rate == 0 && !f.Corrupt {
		call.serve(w, r, f)
		return
	}
	b := &badBody{ResponseWriter: w, srv: s, r: r, fault: f}
	call.serve(b, r, f)
	if b.ended {
		abort(w, f.Reset)
	}
}

// wait returns true when d has passed, and false when client or server went before.
func (s *Server) wait(ctx context.Context, d time.Duration) bool {
	c, stop := s.clock.Timer(d)
	defer stop()
	select {
	case <-c:
		return true
	case <-ctx.Done():
	case <-s.closed:
	}
	return false
}

// hang returns when client or server go, or the fault is cleared.
func (s *Server) hang(ctx context.Context, f Fault) {
	select {
	case <-f.cleared:
	case <-ctx.Done():
	case <-s.closed:
	}
}

// abort ends the connection without a further byte: by a reset, or in order. A writer
// that cannot be hijacked is a test's recorder, and has nothing to end.
func abort(w http.ResponseWriter, reset bool) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	under := conn
	if t, ok := conn.(*tls.Conn); ok {
		under = t.NetConn()
	}
	if t, ok := under.(*net.TCPConn); ok && reset {
		_ = t.SetLinger(0) // an error leaves it an orderly end
		conn = under       // and TLS says no farewell
	}
	_ = conn.Close() // there is nobody to tell
}

// discard is where the answer of an operation goes that must not be answered.
type discard struct{ header http.Header }

// Header is not sent.
func (d discard) Header() http.Header { return d.header }

// WriteHeader does nothing.
func (d discard) WriteHeader(int) {}

// Write does nothing.
func (d discard) Write(b []byte) (int, error) { return len(b), nil }

// errEnded ends a copy into a badBody.
var errEnded = errors.New("answer ended on demand")

// badBody is a ResponseWriter whose body is slow, damaged or cut. It hides the ReaderFrom
// of the writer within.
type badBody struct {
	http.ResponseWriter
	srv   *Server
	r     *http.Request
	fault Fault
	sent  int64
	ended bool
}

// Write passes on what the fault lets pass.
func (b *badBody) Write(p []byte) (int, error) {
	total := 0
	for len(p) > 0 && !b.ended {
		n, err := b.piece(p)
		total, p = total+n, p[n:]
		if err != nil {
			return total, err
		}
	}
	if b.ended {
		return total, errEnded
	}
	return total, nil
}

// piece writes some of p: at most a tenth of a second's worth, and not across the place
// where something happens.
func (b *badBody) piece(p []byte) (int, error) {
	f := b.fault
	if f.Rate > 0 {
		p = p[:min(int64(len(p)), max(1, f.Rate/10))]
	}
	stops := f.Hang || f.Reset || f.Break
	if left := f.After - b.sent; stops && left >= 0 {
		p = p[:min(int64(len(p)), left)]
		if len(p) == 0 {
			return 0, b.end()
		}
	}
	if at := f.After - b.sent; f.Corrupt && at >= 0 && at < int64(len(p)) {
		p = append([]byte(nil), p...)
		p[at] ^= 0xff
	}
	n, err := b.ResponseWriter.Write(p)
	b.sent += int64(n)
	if err == nil && f.Rate > 0 {
		b.flush()
		if !b.srv.wait(b.r.Context(), time.Duration(n)*time.Second/time.Duration(f.Rate)) {
			err = errEnded
		}
	}
	return n, err
}

// end is where the answer stops: at once or, if it hangs, when nobody waits any more.
func (b *badBody) end() error {
	b.flush()
	if b.fault.Hang {
		b.srv.hang(b.r.Context(), b.fault)
	}
	b.ended = true
	return errEnded
}

func (b *badBody) flush() {
	_ = http.NewResponseController(b.ResponseWriter).Flush() // it is a matter of timing only
}

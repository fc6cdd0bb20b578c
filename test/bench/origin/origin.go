// Package origin is a server that answers like S3 at a distance: 30 ms to the first byte,
// and 80 MiB/s a connection. It goes by the clock, so that a busy machine sends later and
// not less.
package origin

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"
)

const (
	// FirstByte is the time from a request to its answer.
	FirstByte = 30 * time.Millisecond
	// Rate is that of one connection, in bytes a second.
	Rate = 80 << 20

	block = 1 << 20 // of noise; an object is made of its repetitions
	piece = 64 << 10
	tag   = `"0123456789abcdef0123456789abcdef-2"`
)

// ETag is that of every object, without quotes.
const ETag = "0123456789abcdef0123456789abcdef-2"

// Key names an object of so many bytes.
func Key(size int64) string { return fmt.Sprintf("images/%d.tar", size) }

// Serve starts the server on a port of its own. stop ends it.
func Serve(ctx context.Context) (url string, stop func() error, err error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	noise := make([]byte, block)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise) // it never fails
	server := &http.Server{Handler: handler(noise), ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(l) }() // Close ends it
	return "http://" + l.Addr().String(), server.Close, nil
}

// handler answers HEAD, and GET with or without a range.
type handler []byte

// ServeHTTP implements http.Handler.
func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	size, err := strconv.ParseInt(strings.TrimSuffix(path.Base(r.URL.Path), ".tar"), 10, 64)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	start, end, status := int64(0), size, http.StatusOK
	if asked := r.Header.Get("Range"); asked != "" {
		if _, err := fmt.Sscanf(asked, "bytes=%d-%d", &start, &end); err != nil || start >= size {
			http.Error(w, asked, http.StatusRequestedRangeNotSatisfiable)
			return
		}
		end, status = min(end+1, size), http.StatusPartialContent
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, end-1, size))
	}
	w.Header().Set("ETag", tag)
	w.Header().Set("X-Amz-Request-Id", "1")
	w.Header().Set("Content-Length", strconv.FormatInt(end-start, 10))
	<-time.After(time.Until(began.Add(FirstByte)))
	w.WriteHeader(status)
	if r.Method == http.MethodGet {
		h.send(w, start, end, began.Add(FirstByte))
	}
}

// send sends the bytes from start to end, none before its time.
func (h handler) send(w http.ResponseWriter, start, end int64, first time.Time) {
	for at := start; at < end; {
		<-time.After(time.Until(first.Add(time.Duration(at-start) * time.Second / Rate)))
		from := at % block
		n := min(piece, end-at, block-from)
		if _, err := w.Write(h[from : from+n]); err != nil {
			return
		}
		at += n
	}
}

package download

import (
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"
)

const (
	piece     = 64 << 10
	rate      = 25 << 20 // bytes a second and connection
	firstByte = 30 * time.Millisecond
)

// limited is a peer as S3 is one: every request waits before the first byte, and no
// connection is faster than the rate. It goes by the clock and not by pauses, which a
// busy machine makes longer.
type limited struct {
	http.ResponseWriter
	began time.Time
	sent  int
}

func (l *limited) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		due := l.began.Add(firstByte + time.Duration(l.sent)*time.Second/rate)
		<-time.After(time.Until(due))
		var m int
		m, err = l.ResponseWriter.Write(p[:min(piece, len(p))])
		l.sent, n, p = l.sent+m, n+m, p[m:]
	}
	return n, err
}

// ReadFrom keeps net/http from going round the limit with sendfile(2).
func (l *limited) ReadFrom(r io.Reader) (int64, error) { return io.Copy(struct{ io.Writer }{l}, r) }

// BenchmarkFetch compares one request with a window of them, from a peer that gives 30 ms
// to the first byte and 25 MiB/s a connection.
func BenchmarkFetch(b *testing.B) {
	data := noise(64 << 20)
	o := &origin{t: b, data: data}
	api := client(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.ServeHTTP(&limited{ResponseWriter: w, began: time.Now()}, r)
	}))
	for _, conns := range []int{1, 2, 5, 10} {
		obj, name := notified(len(data)), fmt.Sprintf("window of %d", conns)
		if conns == 1 {
			obj.Size, name = 0, "one request" // of a size that is not known, so no ranges
		}
		b.Run(name, func(b *testing.B) {
			d := downloader(b, api, Config{Connections: conns})
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if _, err := d.Fetch(b.Context(), "1.tar", obj, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

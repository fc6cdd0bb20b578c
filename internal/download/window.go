package download

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// errNoRanges says that this S3 does not answer a range with the range: the whole object
// is asked for instead.
var errNoRanges = errors.New("ranges are not honoured")

// span is a part of the object, from start up to but without end.
type span struct{ start, end int64 }

// ended is a span that a worker has done with.
type ended struct {
	span
	err error
}

// saved is an offset up to which the follower has brought the file.
type saved struct {
	offset int64
	err    error
}

// window fetches an object by ranges, several at once, into one file. Workers write the
// parts where they belong, in whatever order they come; a follower hashes the file in
// order behind them and saves the progress. No part is begun more than a window's length
// beyond the saved progress: that is what a killed download asks for again, at most.
type window struct {
	d      *Downloader
	dog    *watchdog
	part   *partial
	size   int64 // of a part
	length int64 // of the window
	conns  int

	mu   sync.Mutex
	here map[int64]int64 // by the start of a span, how many of its bytes are in the file
}

// fill fetches what is missing and returns when the whole file is hashed and on disk.
func (w *window) fill(ctx context.Context, onProgress func(done, total int64)) error {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	c := channels{make(chan span), make(chan ended), make(chan int64), make(chan saved)}
	for range w.conns {
		all.Go(func() { w.work(ctx, c) })
	}
	all.Go(func() { w.follow(ctx, c) })
	err := w.steer(ctx, c, w.part.offset, onProgress)
	cancel()
	close(c.todo)
	close(c.frontier)
	all.Wait() // the follower ends what it is at: progress saved is progress kept
	if err != nil && resumable(err) {
		err = errors.Join(err, w.keep())
	}
	return err
}

// keep brings the file on as far as its bytes go without a gap, parts that are not
// complete included: where no attempt has the time for a whole part, the next one begins
// in its middle.
func (w *window) keep() error {
	to := w.part.offset
	for n := w.here[to]; n > 0; n = w.here[to] {
		to += n
	}
	if to == w.part.offset {
		return nil
	}
	return w.part.advance(to)
}

// channels connect those who fill a file. All are unbuffered.
type channels struct {
	todo     chan span  // to the workers
	ended    chan ended // from the workers
	frontier chan int64 // to the follower: every byte before it is in the file
	saved    chan saved // from the follower
}

// steer hands out spans and tells the follower how far it may go, until all is saved or
// something fails.
func (w *window) steer(ctx context.Context, c channels, offset int64, onProgress func(done, total int64)) error {
	total := w.part.object.Size
	next, front, told, safe, done := offset, offset, offset, offset, offset
	beyond := map[int64]int64{} // finished spans that the frontier has not reached, by their start
	for safe < total {
		todo, s := c.todo, span{next, min(next+w.size, total)}
		if s.start == total || s.end > safe+w.length {
			todo = nil
		}
		frontier := c.frontier
		if front == told {
			frontier = nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case todo <- s:
			next = s.end
		case frontier <- front:
			told = front
		case f := <-c.saved:
			if f.err != nil {
				return f.err
			}
			safe = f.offset
		case e := <-c.ended:
			if e.err != nil {
				return e.err
			}
			beyond[e.start] = e.end
			for end, ok := beyond[front]; ok; end, ok = beyond[front] {
				delete(beyond, front)
				front = end
			}
			if done += e.end - e.start; onProgress != nil {
				onProgress(done, total)
			}
		}
	}
	return nil
}

// work fetches spans until there are no more.
func (w *window) work(ctx context.Context, c channels) {
	for s := range c.todo {
		err := w.get(ctx, s)
		select {
		case c.ended <- ended{s, err}:
		case <-ctx.Done():
			return
		}
	}
}

// follow brings the file on, up to every frontier it is told. While it hashes and waits
// for the disk, the frontier moves: the next step is as long as the last one took, so a
// slow disk is asked to synchronise seldom.
func (w *window) follow(ctx context.Context, c channels) {
	for to := range c.frontier {
		err := w.part.advance(to)
		select {
		case c.saved <- saved{to, err}:
		case <-ctx.Done():
			return
		}
	}
}

// get fetches one span. Where its connection breaks, only the rest is asked for again.
func (w *window) get(ctx context.Context, s span) error {
	rest := s
	for try := 1; ; try++ {
		err := w.ask(ctx, rest, func(n int) {
			rest.start += int64(n)
			w.note(s.start, rest.start-s.start)
		})
		if try == partTries || !w.d.again(ctx, try, err) {
			return err
		}
	}
}

// note says that so many bytes of the span that begins there are in the file.
func (w *window) note(start, n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.here[start] = n
}

// ask makes one request for a span, and says of each piece of it that it is in the file.
func (w *window) ask(ctx context.Context, s span, wrote func(n int)) error {
	id := w.part.object
	in := request(id.object())
	in.Range = aws.String(fmt.Sprintf("bytes=%d-%d", s.start, s.end-1))
	// S3 has no checksum of an arbitrary range. One that comes nevertheless is that of
	// the object, and not of the range.
	in.ChecksumMode = ""
	w.dog.listen()
	out, err := w.d.api.GetObject(ctx, in,
		func(o *s3.Options) { o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired })
	w.dog.pause()
	if err != nil {
		return translate(err)
	}
	defer out.Body.Close()
	if err := admitRange(out, s, id); err != nil {
		return err
	}
	b := body{r: out.Body, dog: w.dog, total: s.end - s.start, limit: s.end - s.start, unchecked: true}
	return b.copyTo(ctx, noting{io.NewOffsetWriter(w.part.file, s.start), wrote})
}

// admitRange judges the headers of the answer to a range.
func admitRange(out *s3.GetObjectOutput, s span, id identity) error {
	from := sourceOf(out.ResultMetadata, out.ETag, out.ContentType)
	got, want := aws.ToString(out.ContentRange), fmt.Sprintf("bytes %d-%d/%d", s.start, s.end-1, id.Size)
	switch {
	case from.etag != "" && from.etag != id.ETag && from.id:
		return fmt.Errorf("%w: ETag is %q, it was %q", ErrChanged, from.etag, id.ETag)
	case from.etag != "" && from.etag != id.ETag, got != want && !from.proven(id.ETag):
		return fmt.Errorf("%w: asked for %q of ETag %q, got %q of %q without a request id",
			ErrNotS3, want, id.ETag, got, from.etag)
	case got != want:
		return fmt.Errorf("%w: asked for %q, got %q", errNoRanges, want, got)
	}
	return nil
}

// noting is a writer that tells how much it wrote.
type noting struct {
	io.Writer
	wrote func(n int)
}

func (w noting) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	w.wrote(n)
	return n, err
}

package download

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// ahead is how many more requests than bodies an object may have: they wait for their
// first byte while the last bytes of others come.
const ahead = 2

// errNoRanges is returned when this S3 does not answer a range with that range. Then the
// whole object is requested instead.
var errNoRanges = errors.New("ranges are not honoured")

// span is a part of the object, from start up to but without end.
type span struct{ start, end int64 }

// ask is a span that may be asked for now.
type ask struct {
	span
	place *claim // in the budget
}

// finishedSpan is a worker's report on a span.
type finishedSpan struct {
	span
	err error
}

// savedOffset is the follower's report: the file is hashed and on disk up to the offset.
type savedOffset struct {
	offset int64
	err    error
}

// window fetches an object by ranges, several at once, into one file. Workers write the
// parts to their places, in any order. The next range is asked for while the last bytes
// of another come, so that no connection is idle for the time to a first byte. A follower
// hashes the file in order behind them and saves the progress. No part is begun more than
// a window's length beyond the saved progress: a killed download requests at most that
// much again.
type window struct {
	d        *Downloader
	watchdog *watchdog
	part     *partial
	size     int64 // of a part
	length   int64 // of the window
	conns    int   // bodies read at once
	share    *share
	reading  chan struct{} // has an element for each body being read, and room for conns

	mu      sync.Mutex
	written map[int64]int64 // by the start of a span: how many of its bytes are in the file
}

func newWindow(d *Downloader, wd *watchdog, p *partial) *window {
	conns := d.cfg.Connections
	return &window{
		d: d, watchdog: wd, part: p, size: d.cfg.Part, length: 2 * int64(conns) * d.cfg.Part, conns: conns,
		share:   &share{budget: d.budget, limit: conns},
		reading: make(chan struct{}, conns),
		written: map[int64]int64{},
	}
}

// fetchAll fetches the missing parts and returns when the whole file is hashed and on
// disk.
func (w *window) fetchAll(ctx context.Context, onProgress func(done, total int64)) error {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	c := channels{make(chan span), make(chan ask), make(chan finishedSpan), make(chan int64), make(chan savedOffset)}
	all.Go(func() { w.dispatch(ctx, c) })
	for range w.conns + ahead {
		all.Go(func() { w.fetchSpans(ctx, c) })
	}
	all.Go(func() { w.follow(ctx, c) })
	err := w.coordinate(ctx, c, onProgress)
	cancel()
	close(c.todo)
	close(c.frontier)
	all.Wait() // the follower completes its step: saved progress is kept
	if err != nil && resumable(err) {
		err = errors.Join(err, w.saveContiguous())
	}
	return err
}

// saveContiguous advances the file over all bytes without a gap, incomplete parts
// included. If no attempt has the time for a whole part, the next one then begins in the
// middle of it.
func (w *window) saveContiguous() error {
	to := w.part.offset
	for n := w.written[to]; n > 0; n = w.written[to] {
		to += n
	}
	if to == w.part.offset {
		return nil
	}
	return w.part.advance(to)
}

// channels connect the goroutines of a window. All are unbuffered.
type channels struct {
	todo     chan span         // to the dispatcher
	asks     chan ask          // from there to the workers
	finished chan finishedSpan // from the workers
	frontier chan int64        // to the follower: every byte before it is in the file
	saved    chan savedOffset  // from the follower
}

// progress has the offsets of a download by parts:
// durable <= announced <= contiguous <= next <= total.
type progress struct {
	part, length, total int64 // of a part, of the window, of the object

	next       int64 // start of the next span for a worker
	contiguous int64 // every byte before it is in the file
	announced  int64 // the last offset sent to the follower
	durable    int64 // every byte before it is hashed and on disk

	fetched int64           // bytes, wherever they are
	ahead   map[int64]int64 // finished spans beyond contiguous: their ends by their starts
}

func newProgress(w *window) *progress {
	at := w.part.offset
	return &progress{
		part: w.size, length: w.length, total: w.part.object.Size,
		next: at, contiguous: at, announced: at, durable: at, fetched: at,
		ahead: map[int64]int64{},
	}
}

// nextSpan returns the next span for a worker. ok is false if all are handed out, or if
// the span would reach beyond the window.
func (p *progress) nextSpan() (s span, ok bool) {
	s = span{p.next, min(p.next+p.part, p.total)}
	return s, s.start < p.total && s.end <= p.durable+p.length
}

// finish records a fetched span and moves contiguous over all spans that now adjoin.
func (p *progress) finish(s span) {
	p.fetched += s.end - s.start
	p.ahead[s.start] = s.end
	for end, ok := p.ahead[p.contiguous]; ok; end, ok = p.ahead[p.contiguous] {
		delete(p.ahead, p.contiguous)
		p.contiguous = end
	}
}

// coordinate hands out spans and tells the follower how far it may go, until everything
// is durable or something fails.
func (w *window) coordinate(ctx context.Context, c channels, onProgress func(done, total int64)) error {
	p := newProgress(w)
	for p.durable < p.total {
		todo, frontier := c.todo, c.frontier
		s, ok := p.nextSpan()
		if !ok {
			todo = nil // a nil channel is never ready: the select skips it
		}
		if p.announced == p.contiguous {
			frontier = nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case todo <- s:
			p.next = s.end
		case frontier <- p.contiguous:
			p.announced = p.contiguous
		case f := <-c.saved:
			if f.err != nil {
				return f.err
			}
			p.durable = f.offset
		case f := <-c.finished:
			if f.err != nil {
				return f.err
			}
			p.finish(f.span)
			if onProgress != nil {
				onProgress(p.fetched, p.total)
			}
		}
	}
	return nil
}

// dispatch passes the spans on to the workers, each when the budget has a place for it.
// One goroutine does it, so that they are asked for in order.
func (w *window) dispatch(ctx context.Context, c channels) {
	defer close(c.asks)
	for s := range c.todo {
		place, err := w.share.acquire(ctx)
		if err != nil {
			return
		}
		select {
		case c.asks <- ask{s, place}:
		case <-ctx.Done():
			place.end()
			return
		}
	}
}

// fetchSpans fetches spans until there are no more.
func (w *window) fetchSpans(ctx context.Context, c channels) {
	for a := range c.asks {
		err := w.fetchSpan(ctx, a)
		select {
		case c.finished <- finishedSpan{a.span, err}:
		case <-ctx.Done():
			return
		}
	}
}

// follow advances the file to every frontier it receives. While it hashes and waits for
// the disk, the frontier moves on: the next step is as long as the last one took, so a
// slow disk is seldom asked to synchronise.
func (w *window) follow(ctx context.Context, c channels) {
	for to := range c.frontier {
		err := w.part.advance(to)
		select {
		case c.saved <- savedOffset{to, err}:
		case <-ctx.Done():
			return
		}
	}
}

// fetchSpan fetches one span. If the connection breaks, it requests only the rest again.
func (w *window) fetchSpan(ctx context.Context, a ask) error {
	rest := a
	for try := 1; ; try++ {
		err := w.requestSpan(ctx, rest, func(n int) {
			rest.start += int64(n)
			w.recordWritten(a.start, rest.start-a.start)
		})
		if try == partTries || !w.d.pauseForRetry(ctx, try, err) {
			return err
		}
		if rest.place, err = w.share.acquire(ctx); err != nil {
			return err
		}
	}
}

// recordWritten records that the first n bytes of the span at start are in the file.
func (w *window) recordWritten(start, n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.written[start] = n
}

// requestSpan makes one request for a span. It calls onWrite for each piece written to
// the file. The place in the budget is free for another while the last pieces come, so
// that the next request has its answer when this body ends.
func (w *window) requestSpan(ctx context.Context, a ask, onWrite func(n int)) error {
	defer a.place.end()
	s, asked := a.span, time.Now()
	out, err := w.getSpan(ctx, s)
	if err != nil {
		return err
	}
	defer out.Body.Close()
	answer := time.Since(asked)
	select {
	case w.reading <- struct{}{}:
		defer func() { <-w.reading }()
	case <-ctx.Done():
		return ctx.Err()
	}
	b := body{
		r: out.Body, watchdog: w.watchdog, total: s.end - s.start, limit: s.end - s.start, unchecked: true,
		received: w.d.cfg.Observer.received,
	}
	began, rest := time.Now(), s
	return b.copyTo(ctx, countingWriter{io.NewOffsetWriter(w.part.file, s.start), func(n int) {
		onWrite(n)
		rest.start += int64(n)
		if nearEnd(s, rest, time.Since(began), answer) {
			a.place.end()
		}
	}})
}

// nearEnd reports whether the rest of a span will take no longer than an answer did. A
// body's first bytes may have waited in the kernel and say nothing about the rate, so
// that is believed from the middle on.
func nearEnd(s, rest span, took, answer time.Duration) bool {
	left, done := rest.end-rest.start, rest.start-s.start
	return left <= done && float64(left)*took.Seconds() <= float64(done)*answer.Seconds()
}

// getSpan asks for a span and checks the headers of the answer.
func (w *window) getSpan(ctx context.Context, s span) (*s3.GetObjectOutput, error) {
	id := w.part.object
	in := getInput(id.object())
	in.Range = aws.String(fmt.Sprintf("bytes=%d-%d", s.start, s.end-1))
	// S3 has no checksum of an arbitrary range. If one comes nevertheless, it is the
	// object's.
	in.ChecksumMode = ""
	w.watchdog.arm()
	out, err := w.d.api.GetObject(ctx, in,
		func(o *s3.Options) { o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired })
	w.watchdog.disarm()
	if err != nil {
		return nil, translate(err)
	}
	if err := checkRangeAnswer(out, s, id); err != nil {
		_ = out.Body.Close() // what it would say is less than this
		return nil, err
	}
	return out, nil
}

// checkRangeAnswer checks the headers of the answer to a range.
func checkRangeAnswer(out *s3.GetObjectOutput, s span, id identity) error {
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

// countingWriter reports how much it wrote.
type countingWriter struct {
	io.Writer
	onWrite func(n int)
}

func (w countingWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	w.onWrite(n)
	return n, err
}

package download

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// asking claims n requests for a download, each by a goroutine of its own, and notes the
// name for each that is granted; those are in the channel.
func asking(t *testing.T, s *share, name string, n int, granted *[]string) (held chan *claim) {
	held = make(chan *claim, n) // nobody waits for the one who asks
	var mu sync.Mutex
	for range n {
		go func() {
			c, err := s.acquire(t.Context())
			if err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			*granted = append(*granted, name)
			held <- c
		}()
		synctest.Wait()
	}
	return held
}

// A lone download has all it may have; the next ones get what is free, and then whatever
// ends, until each has as many as the others.
func TestBudgetIsFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &budget{free: 6}
		var granted []string
		first := asking(t, &share{budget: b, limit: 5}, "a", 8, &granted)
		second := asking(t, &share{budget: b, limit: 5}, "b", 4, &granted)
		third := asking(t, &share{budget: b, limit: 5}, "c", 2, &granted)
		if want := []string{"a", "a", "a", "a", "a", "b"}; !slices.Equal(granted, want) {
			t.Fatalf("granted at once: %q, want %q", granted, want)
		}
		granted = nil
		for range 4 { // of five
			(<-first).end()
			synctest.Wait()
		}
		// c has none, then as few as b, then both have two and a has the fewest
		if want := []string{"c", "b", "c", "a"}; !slices.Equal(granted, want) {
			t.Errorf("granted as those of a ended: %q, want %q", granted, want)
		}
		if b.free != 0 || len(first)+len(second)+len(third) != 6 {
			t.Errorf("%d free, and %d, %d, %d held of 6", b.free, len(first), len(second), len(third))
		}
	})
}

// A claim that ends twice ends once, and one that no longer waits leaves nothing behind,
// not even if it is granted in that moment.
func TestBudgetLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &budget{free: 1}
		s := &share{budget: b, limit: 1}
		only, err := s.acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		failed := make(chan error)
		go func() {
			_, err := s.acquire(ctx)
			failed <- err
		}()
		synctest.Wait()
		cancel(errStage)
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want that the context ended", err)
		}
		late := s.claim()
		only.end()
		only.end()
		<-late.granted
		late.end()
		if b.free != 1 || s.held != 0 || len(b.waiting) != 0 {
			t.Errorf("%d free, %d held, %d waiting; want 1, 0, 0", b.free, s.held, len(b.waiting))
		}
	})
}

// pieces is how many pieces a part comes in.
const pieces = 64

// paced is a peer with a time to the first byte, and then a time for each part. Both are
// of the bubble's clock, so a download takes exactly as long as it must.
type paced struct {
	counting

	reading atomic.Int64
	most    atomic.Int64 // bodies read at once
}

func newPaced(data []byte, answer, whole time.Duration) *paced {
	p := &paced{}
	p.API = parts{
		data: data,
		get:  func(ctx context.Context, _ span) error { return pass(ctx, answer) },
		body: func(ctx context.Context, s span) io.Reader {
			return p.body(ctx, bytes.NewReader(data[s.start:s.end]), whole)
		},
	}
	return p
}

// pass waits, unless the context ends.
func pass(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// body takes its time for each piece, from the first time that it is read.
func (p *paced) body(ctx context.Context, rest *bytes.Reader, whole time.Duration) io.Reader {
	begin := sync.OnceFunc(func() {
		now := p.reading.Add(1)
		for old := p.most.Load(); now > old && !p.most.CompareAndSwap(old, now); old = p.most.Load() {
		}
	})
	return reader(func(to []byte) (int, error) {
		begin()
		if rest.Len() == 0 {
			p.reading.Add(-1)
			return 0, io.EOF
		}
		if err := pass(ctx, whole/pieces); err != nil {
			return 0, err
		}
		return rest.Read(to[:part/pieces])
	})
}

// A connection waits for a first byte once, and then brings part after part: asking early
// takes one request more, and not one body more.
func TestNextRangeIsAskedForBeforeTheLastEnds(t *testing.T) {
	const n, whole = 12, 160 * time.Millisecond
	data := noise(n * part)
	for name, answer := range map[string]time.Duration{"near": 5 * time.Millisecond, "far": 50 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				api := newPaced(data, answer, whole)
				d := downloader(t, api, Config{Part: part, Connections: 1})
				began := time.Now()
				blob, err := d.Fetch(t.Context(), "1.tar", notified(len(data)), nil)
				if err != nil {
					t.Fatal(err)
				}
				if took, want := time.Since(began), answer+n*whole; took != want {
					t.Errorf("took %s, want %s", took, want)
				}
				wantBlob(t, d, "1.tar", blob, data)
				if bodies, requests := api.most.Load(), api.counting.most.Load(); bodies != 1 || requests != 2 {
					t.Errorf("%d bodies and %d requests at once, want 1 and 2", bodies, requests)
				}
			})
		})
	}
}

// A second download has its half of the requests soon after it has begun, and all of them
// when the first has ended.
func TestDownloadsShareTheirRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, whole, requests = 48, 100 * time.Millisecond, 4
		data := noise(n * part)
		api := newPaced(data, 10*time.Millisecond, whole)
		d := downloader(t, api, Config{Part: part, Connections: requests, Requests: requests})
		var both sync.WaitGroup
		began := time.Now()
		var second time.Duration
		var first atomic.Bool  // has ended
		var early atomic.Int64 // parts that the second had then
		both.Go(func() {
			if _, err := d.Fetch(t.Context(), "1.tar", notified(len(data)), nil); err != nil {
				t.Error(err)
			}
			first.Store(true)
		})
		<-time.After(n / 4 / requests * whole) // a quarter of the first
		both.Go(func() {
			_, err := d.Fetch(t.Context(), "2.tar", notified(len(data)), func(done, _ int64) {
				if !first.Load() {
					early.Store(done / part)
				}
			})
			if err != nil {
				t.Error(err)
			}
			second = time.Since(began)
		})
		both.Wait()
		if got := early.Load(); got < n*3/4-2*requests || got > n*3/4+requests {
			t.Errorf("the second had %d parts when the first had its last three quarters, %d", got, n*3/4)
		}
		if least := 2 * n / requests * whole; second < least || second > least*11/10 {
			t.Errorf("both took %s, and %d requests at once need %s", second, requests, least)
		}
		if most := api.counting.most.Load(); most > requests+2*ahead {
			t.Errorf("%d requests at once, of %d and the %d that each may have ahead", most, requests, ahead)
		}
	})
}

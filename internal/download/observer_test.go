package download

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// An observer is told of every request, of every byte that came, and of those on disk
// that the next attempt goes on behind.
func TestObserver(t *testing.T) {
	o := &origin{t: t, data: noise(4 * wide), before: denyFrom(2 * wide)}
	var ok, failed, received, resumed atomic.Int64
	cfg := small()
	cfg.Observer = Observer{
		Requested: func(err error) {
			if err != nil {
				failed.Add(1)
				return
			}
			ok.Add(1)
		},
		Received: func(n int) { received.Add(int64(n)) },
		Resumed:  func(n int64) { resumed.Add(n) },
	}
	d := downloader(t, client(t, o), cfg)
	if _, err := d.Fetch(t.Context(), "x", notified(len(o.data)), nil); !errors.Is(err, ErrDenied) {
		t.Fatalf("%v, want ErrDenied", err)
	}
	first := received.Load()
	if failed.Load() == 0 || ok.Load() == 0 || resumed.Load() != 0 || first < wide {
		t.Errorf("%d requests failed, %d succeeded, %d bytes came, %d resumed",
			failed.Load(), ok.Load(), first, resumed.Load())
	}
	d.api = observedAPI{client(t, &origin{t: t, data: o.data}), cfg.Observer}
	if _, err := d.Fetch(t.Context(), "x", notified(len(o.data)), nil); err != nil {
		t.Fatal(err)
	}
	if n := resumed.Load(); n == 0 || n+received.Load()-first != int64(len(o.data)) {
		t.Errorf("%d bytes resumed and %d came, of %d", n, received.Load()-first, len(o.data))
	}
}

// A silent peer is told as a stall.
func TestStallIsObserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stalls atomic.Int64
		silent := serve(10, func(ctx context.Context) reader {
			return func([]byte) (int, error) {
				<-ctx.Done()
				return 0, io.ErrUnexpectedEOF
			}
		})
		d := downloader(t, silent, Config{Observer: Observer{Stalled: func() { stalls.Add(1) }}})
		if _, err := d.Fetch(t.Context(), "x", notified(10), nil); err == nil || stalls.Load() != 1 {
			t.Errorf("%v, %d stalls", err, stalls.Load())
		}
	})
}

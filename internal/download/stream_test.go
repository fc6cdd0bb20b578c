package download

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// silent is a body that says nothing until its context ends.
func silent(ctx context.Context) reader {
	return func([]byte) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	}
}

// drip is a body that takes a pause before each of its n bytes, and then ends or falls
// silent.
func drip(n int, pause time.Duration, ends bool) func(context.Context) reader {
	return func(ctx context.Context) reader {
		left := n
		return func(p []byte) (int, error) {
			if left == 0 {
				if ends {
					return 0, io.EOF
				}
				return silent(ctx)(p)
			}
			select {
			case <-ctx.Done():
				return 0, ctx.Err()
			case <-time.After(pause):
			}
			left--
			return copy(p, "x"), nil
		}
	}
}

var errStage = errors.New("the stage ran out of time")

// Silence, however it begins, ends after the limit and not sooner; what is slow but alive
// goes on.
func TestStall(t *testing.T) {
	const limit = 10 * time.Second
	mute := fake(func(ctx context.Context) (*s3.GetObjectOutput, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	cases := map[string]struct {
		api  API
		took time.Duration
		want error
	}{
		"no answer":             {mute, limit, ErrStalled},
		"headers, then silence": {serve(100, silent), limit, ErrStalled},
		"a few bytes":           {serve(100, drip(3, time.Second, false)), 3*time.Second + limit, ErrStalled},
		"slow but alive":        {serve(100, drip(100, limit-time.Second, true)), 100 * (limit - time.Second), nil},
		"all bytes, no end":     {serve(3, drip(3, time.Second, false)), 3*time.Second + limit, ErrStalled},
		"all but the end":       {serve(-1, drip(100, time.Second, false)), 100*time.Second + limit, ErrStalled},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := downloader(t, c.api, Config{StallTimeout: limit})
				began := time.Now()
				_, err := d.Fetch(t.Context(), "1.tar", Object{}, nil)
				if took := time.Since(began); took != c.took {
					t.Errorf("took %s, want %s", took, c.took)
				}
				if !errors.Is(err, c.want) || errors.Is(err, ErrCorrupt) || c.want != nil &&
					!errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%v, want %v", err, c.want)
				}
				if err != nil {
					wantFiles(t, d)
				}
			})
		})
	}
}

// A disk, or a reader of the progress, that takes its time is not the peer's silence.
func TestSlowDiskIsNoStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := downloader(t, serve(len(payload), func(ctx context.Context) reader {
			rest := once(payload)
			return func(p []byte) (int, error) {
				if ctx.Err() != nil {
					return 0, ctx.Err()
				}
				return rest(p)
			}
		}), Config{StallTimeout: time.Second})
		blob, err := d.Fetch(t.Context(), "1.tar", notified(len(payload)),
			func(int64, int64) { <-time.After(time.Minute) })
		if err != nil {
			t.Fatal(err)
		}
		wantBlob(t, d, "1.tar", blob, payload)
	})
}

// The end of the caller's context is told by its cause, whatever it interrupts, and
// leaves nothing behind.
func TestCancel(t *testing.T) {
	mute := fake(func(ctx context.Context) (*s3.GetObjectOutput, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	for name, api := range map[string]API{"no answer": mute, "in the body": serve(100, drip(50, time.Second, false))} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := downloader(t, api, Config{StallTimeout: time.Hour})
				write(t, d.cfg.Dir+"/1.tar", "the blob from before")
				ctx, cancel := context.WithTimeoutCause(t.Context(), 30*time.Second, errStage)
				defer cancel()
				began := time.Now()
				_, err := d.Fetch(ctx, "1.tar", Object{}, nil)
				if !errors.Is(err, errStage) || errors.Is(err, ErrStalled) || errors.Is(err, ErrShort) {
					t.Errorf("%v, want %v", err, errStage)
				}
				if took := time.Since(began); took != 30*time.Second {
					t.Errorf("took %s", took)
				}
				wantFiles(t, d)
			})
		})
	}
}

// A context that has ended already asks nothing of the network for long.
func TestCancelledBefore(t *testing.T) {
	d := downloader(t, client(t, object()), Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Fetch(ctx, "1.tar", notified(len(payload)), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
	wantFiles(t, d)
}

// A peer that sends more than it promised is stopped at the promise, not at the limit.
func TestEndlessBody(t *testing.T) {
	var sent int64
	d := downloader(t, serve(10, func(context.Context) reader {
		return func(p []byte) (int, error) {
			sent += int64(len(p))
			return len(p), nil
		}
	}), Config{})
	if _, err := d.Fetch(t.Context(), "1.tar", Object{}, nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("%v, want ErrCorrupt", err)
	}
	if sent > bufferSize {
		t.Errorf("took %d bytes of a promise of 10", sent)
	}
	wantFiles(t, d)
}

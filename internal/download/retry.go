package download

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"time"
)

const (
	// partTries is how often a part is requested if its body breaks. If one answer in
	// five breaks, one image of 10 GiB in 8,000 still fails.
	partTries = 10
	// wholeTries is the same for an object fetched by one request. Each try begins at 0.
	wholeTries = 3
	// maxPause is the longest pause between two tries.
	maxPause = 5 * time.Second
)

// pauseForRetry reports whether to request the bytes again after the given try, and waits
// before it. Only a broken body is requested again: the SDK's client has already repeated
// the rest.
func (d *Downloader) pauseForRetry(ctx context.Context, try int, err error) bool {
	if !errors.Is(err, ErrShort) || ctx.Err() != nil {
		return false
	}
	pause := min(d.cfg.Pause<<min(try-1, 10), maxPause)
	timer := time.NewTimer(pause/2 + time.Duration(rand.Int64N(int64(pause)))/2)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// progressError is a failure that leaves new bytes on disk.
type progressError struct {
	error
	bytes int64
}

func (e *progressError) Unwrap() error { return e.error }

// withProgress adds to a failure the number of new bytes it leaves. If they are useless
// after this failure, it adds nothing.
func withProgress(err error, bytes int64) error {
	if bytes <= 0 || !resumable(err) {
		return err
	}
	return &progressError{err, bytes}
}

// Progress returns how many bytes a Fetch that failed with err has added on disk, 0 if
// none or if err is of another origin. The next Fetch of that name and object goes on
// from them, even in another process. A download with progress in every attempt ends.
func Progress(err error) int64 {
	var p *progressError
	if errors.As(err, &p) {
		return p.bytes
	}
	return 0
}

// hasProgress reports whether the blob at path has a saved progress.
func hasProgress(path string) bool {
	info, err := os.Lstat(path + tempSuffix + stateSuffix)
	return err == nil && info.Size() > 0
}

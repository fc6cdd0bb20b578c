package download

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"time"
)

const (
	// partTries is how often a part is asked for whose body breaks: with one answer in
	// five broken, one image of 10 GiB in 8,000 has a part that breaks each time.
	partTries = 10
	// wholeTries is the same for an object that comes by one request, and from its
	// beginning.
	wholeTries = 3
	// maxPause is the longest pause between two tries.
	maxPause = 5 * time.Second
)

// again reports whether bytes are worth another request after the try of that number, and
// waits before it. Only a body that broke is: the SDK's client has repeated the rest.
func (d *Downloader) again(ctx context.Context, try int, err error) bool {
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

// progressError is a failure after which some bytes are here for good.
type progressError struct {
	error
	bytes int64
}

func (e *progressError) Unwrap() error { return e.error }

// progressed adds to a failure how many bytes it leaves that were not here before. A
// failure after which they are of no use leaves none.
func progressed(err error, bytes int64) error {
	if bytes <= 0 || !resumable(err) {
		return err
	}
	return &progressError{err, bytes}
}

// Progress returns how many bytes a Fetch that failed with err added to what is on disk,
// and from which the next Fetch of that name and object goes on; 0 if none, or if err is
// of something else. They survive the process. A download whose every attempt has
// progress ends.
func Progress(err error) int64 {
	var p *progressError
	if errors.As(err, &p) {
		return p.bytes
	}
	return 0
}

// begun reports whether there is progress to go on from beside the blob at path.
func begun(path string) bool {
	info, err := os.Lstat(path + tempSuffix + stateSuffix)
	return err == nil && info.Size() > 0
}

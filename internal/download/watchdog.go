package download

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// watchdog ends a download's context when the peer has been silent for too long. A peer
// alive but silent would otherwise hold the download until the caller's own time-out. One
// watchdog serves all connections of a download: it fires if none of the armed ones has
// brought anything.
type watchdog struct {
	mu    sync.Mutex
	armed int
	timer *time.Timer
	limit time.Duration
}

// watchStall returns a context and its watchdog. The context ends with ErrStalled when
// the watchdog is armed and the limit passes without another arm or disarm. The function
// stops the watchdog and ends the context.
func watchStall(ctx context.Context, limit time.Duration) (context.Context, *watchdog, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(limit, func() { cancel(ErrStalled) })
	timer.Stop()
	return ctx, &watchdog{timer: timer, limit: limit}, func() {
		timer.Stop()
		cancel(context.Canceled)
	}
}

// arm restarts the limit. It is called before waiting for the peer.
func (w *watchdog) arm() { w.adjust(1) }

// disarm is called when the peer has answered or gone. The limit does not run while we
// wait for the disk.
func (w *watchdog) disarm() { w.adjust(-1) }

func (w *watchdog) adjust(by int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.armed += by; w.armed > 0 {
		w.timer.Reset(w.limit)
		return
	}
	w.timer.Stop()
}

// withCause wraps the error in the cause of the context's end, if that led to it.
func withCause(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if err == nil || cause == nil || errors.Is(err, cause) {
		return err
	}
	return fmt.Errorf("%w: %w", cause, err)
}

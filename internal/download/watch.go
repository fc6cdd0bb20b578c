package download

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// watchdog ends a download's context when the peer has been silent for too long: one that
// is alive but sends nothing would otherwise hold the download until the caller's own
// time-out. It watches all connections of a download at once: it is silence when none of
// them, of those that are waited for, has brought anything.
type watchdog struct {
	mu        sync.Mutex
	listening int
	timer     *time.Timer
	limit     time.Duration
}

// watch returns a context that ends with ErrStalled when somebody listens and the limit
// passes without listen or pause. The function stops the watch and ends the context.
func watch(ctx context.Context, limit time.Duration) (context.Context, *watchdog, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(limit, func() { cancel(ErrStalled) })
	timer.Stop()
	return ctx, &watchdog{timer: timer, limit: limit}, func() {
		timer.Stop()
		cancel(context.Canceled)
	}
}

// listen starts the limit anew, before waiting for the peer.
func (w *watchdog) listen() { w.wait(1) }

// pause says that the peer was heard, or has gone. The clock stops while it is the disk
// that is waited for.
func (w *watchdog) pause() { w.wait(-1) }

func (w *watchdog) wait(by int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.listening += by; w.listening > 0 {
		w.timer.Reset(w.limit)
		return
	}
	w.timer.Stop()
}

// explain puts the cause of the context's end before the error that it led to.
func explain(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if err == nil || cause == nil || errors.Is(err, cause) {
		return err
	}
	return fmt.Errorf("%w: %w", cause, err)
}

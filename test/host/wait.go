package host

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"syscall"
	"time"

	"imagemanager.internal/internal/store"
)

// WaitFor polls until cond holds.
func (h *Host) WaitFor(what string, cond func() bool) {
	h.T.Helper()
	h.WaitLonger(0, what, cond)
}

// WaitLonger is WaitFor with more than the usual minute.
func (h *Host) WaitLonger(more time.Duration, what string, cond func() bool) {
	h.T.Helper()
	ctx, cancel := context.WithTimeout(h.T.Context(), time.Minute+more)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond) // a guest has one CPU, for the daemon too
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			h.Check(fmt.Errorf("not in time: %s", what))
		}
	}
}

// IsRunning reports whether the daemon started last has recovered and takes messages, and
// has activated the snapshots that it found inactive.
func (h *Host) IsRunning() bool {
	h.T.Helper()
	log := h.NewestLog()
	return bytes.Contains(log, []byte(`"message":"running"`)) &&
		(!hasInactive.Match(log) || bytes.Contains(log, []byte(`"message":"snapshots activated"`)))
}

// hasInactive is in the log of a daemon that has snapshots to activate.
var hasInactive = regexp.MustCompile(`"to_activate":[1-9][0-9]*,"time":"[^"]*","message":"running"`)

// WaitRunning waits for IsRunning.
func (h *Host) WaitRunning() {
	h.T.Helper()
	h.WaitFor("the daemon runs", func() bool {
		if h.IsRunning() {
			return true
		}
		select {
		case <-h.daemon.done:
			h.Check(fmt.Errorf("the daemon ended before it ran: %w", h.daemon.err))
		default:
		}
		return false
	})
}

// WaitEnded waits until the key's newest image is terminal, and returns it.
func (h *Host) WaitEnded(key string) store.Image {
	h.T.Helper()
	var img store.Image
	h.WaitFor(key+" ends", func() bool {
		images := h.ImagesOf(key)
		if len(images) > 0 {
			img = images[len(images)-1]
		}
		return len(images) > 0 && img.State != store.StatePending
	})
	return img
}

// WaitActive waits until the key's newest image is terminal, and fails the test unless it
// is active.
func (h *Host) WaitActive(key string) store.Image {
	h.T.Helper()
	img := h.WaitEnded(key)
	if img.State != store.StateActive {
		h.Check(fmt.Errorf("%s ended %s: %s", key, img.State, img.Reason))
	}
	return img
}

// IsDrained reports whether the queue holds nothing, visible or in flight.
func (h *Host) IsDrained() bool {
	h.T.Helper()
	drained, err := h.Cloud.IsDrained(h.T.Context())
	h.Check(err)
	return drained
}

// WaitDrained waits until the queue holds nothing.
func (h *Host) WaitDrained() {
	h.T.Helper()
	h.WaitFor("the queue is empty", h.IsDrained)
}

// WaitKilled waits for a daemon to kill itself at a failpoint, and reports whether it
// did. After the given time it stops the daemon.
func (h *Host) WaitKilled(within time.Duration) bool {
	h.T.Helper()
	d := h.daemon
	stop := time.AfterFunc(within, func() { _ = d.cmd.Process.Signal(syscall.SIGTERM) }) // it may have ended
	defer stop.Stop()
	<-d.done
	return h.IsKilled()
}

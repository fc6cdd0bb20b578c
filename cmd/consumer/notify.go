package main

import (
	"cmp"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/rs/zerolog"

	"imagemanager.internal/internal/pipeline/health"
)

const (
	// notifyEvery is how often systemd hears from the daemon. It must be well below the
	// unit's WatchdogSec.
	notifyEvery = 2 * time.Second
	// notifyExtension is how much longer systemd waits for a daemon that still starts,
	// from each message on. How long recovery takes depends on the pool.
	notifyExtension = 30 * time.Second
)

// notifier tells systemd how the daemon is. Source: sd_notify(3).
type notifier struct {
	ready  *readiness
	last   string // the last STATUS
	begun  bool   // READY was sent
	ending bool   // STOPPING was sent
}

// message returns what there is to say now: variables, one a line. A daemon that is stuck
// sends no WATCHDOG, so systemd starts it again. READY waits for the snapshots: units
// ordered after the daemon mount them.
func (n *notifier) message() string {
	var lines []string
	reasons := n.ready.reasons()
	activating := n.ready.activating()
	switch {
	case reasons[health.Starting] != nil, reasons[health.Recovering] != nil,
		activating != "" && !n.begun && reasons[health.Stopping] == nil:
		lines = append(lines, fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", notifyExtension.Microseconds()))
	case reasons[health.Stopping] != nil && !n.ending:
		n.ending = true
		lines = append(lines, daemon.SdNotifyStopping)
	case !n.begun:
		n.begun = true
		lines = append(lines, daemon.SdNotifyReady)
	}
	status := cmp.Or(activating, "ready")
	if why := reasons.Err(); why != nil {
		status = unbroken.Replace(why.Error())
	}
	if status != n.last {
		n.last = status
		lines = append(lines, "STATUS="+status)
	}
	if n.ready.stuck() == nil {
		lines = append(lines, daemon.SdNotifyWatchdog)
	}
	return strings.Join(lines, "\n")
}

// notifySystemd tells systemd how the daemon is until the function returned is called. It
// does nothing unless systemd started the daemon with Type=notify.
func notifySystemd(log zerolog.Logger, ready *readiness) (stop func()) {
	n := &notifier{ready: ready}
	send := func() error {
		_, err := daemon.SdNotify(false, n.message())
		return err
	}
	if err := send(); err != nil {
		log.Warn().Err(err).Msg("systemd cannot be told how the daemon is: look at NOTIFY_SOCKET")
		return func() {}
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(notifyEvery)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				_ = send() // the first one arrived; the watchdog notices if others do not
			}
		}
	})
	return func() {
		close(done)
		wg.Wait()
	}
}

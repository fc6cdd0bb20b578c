package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// lock takes one of the host's locks, as a command that is at work does.
func (h *host) lock(name string) (unlock func()) {
	h.T.Helper()
	f, err := os.OpenFile(filepath.Join(h.State, name), os.O_CREATE|os.O_RDWR, 0o600)
	h.Check(err)
	h.Check(syscall.Flock(int(f.Fd()), syscall.LOCK_EX))
	return func() { h.Check(f.Close()) }
}

// A daemon that is started while a command works on the pool waits, says for whom, and can
// be stopped meanwhile; then it starts.
func TestStartWaitsForACommand(t *testing.T) {
	h := newHost(t)
	unlock := h.lock("pool.lock")
	h.Start()
	h.waitLogged("waiting for another process", 1)
	if text := string(h.Log()); !strings.Contains(text, fmt.Sprintf("process %d", os.Getpid())) || h.IsRunning() {
		t.Errorf("it does not say who is waited for: %s", text)
	}
	h.Signal(syscall.SIGTERM)
	since := time.Now()
	<-h.Done()
	if code, took := h.ExitCode(), time.Since(since); code != 130 || took > 5*time.Second {
		t.Errorf("stopped while it waits: exit code %d after %s", code, took)
	}
	h.Start()
	h.waitLogged("waiting for another process", 2)
	unlock()
	h.serves(h.first())
	h.WaitDrained()
	h.Stop()
	h.Look()
}

// Commands that look, over and over, do not keep a daemon from starting, nor the daemon them
// from looking.
func TestStartsBesideCommands(t *testing.T) {
	h := newHost(t)
	h.Start()
	h.first()
	h.WaitDrained()
	h.Stop()
	for _, args := range [][]string{{"reconcile", "--dry-run"}, {"status"}, {"verify", "--all"}} {
		stop, stopped := make(chan struct{}), make(chan []string)
		go func() {
			var bad []string
			for {
				select {
				case <-stop:
					stopped <- bad
					return
				default:
				}
				if out, code := h.Try(args...); code != 0 {
					bad = append(bad, fmt.Sprintf("%v: exit code %d, %s", args, code, out))
				}
			}
		}()
		for range 4 {
			h.Start()
			h.Stop()
		}
		close(stop)
		for _, text := range <-stopped {
			t.Error(text)
		}
	}
	h.Look()
}

package host

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The harness runs what CONSUMER_BIN names: here a script that acts as the program does.
const script = `#!/bin/sh
[ "$1" = run ] || { echo "out $*"; echo "err $SETTING" >&2; exit 3; }
trap 'exit 0' TERM
echo '{"message":"running","addr":"'$LISTEN_ADDR'"}' >&2
[ -z "$CRASH" ] || kill -9 $$
while :; do sleep 0.02; done
`

func newHost(t *testing.T) *Host {
	t.Helper()
	path := filepath.Join(t.TempDir(), "consumer")
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	t.Setenv("CONSUMER_BIN", path)
	h := &Host{T: t, State: t.TempDir(), Env: []string{"SETTING=host"}}
	h.OpenLog(filepath.Join(t.TempDir(), "log"))
	t.Cleanup(h.Release)
	return h
}

// A command's output, exit code and settings.
func TestTry(t *testing.T) {
	h := newHost(t)
	if out, code := h.Try("images", "--json"); code != 3 || out != "out images --json\nerr host\n" {
		t.Errorf("%d %q", code, out)
	}
	if out, _ := h.TryWith([]string{"SETTING=this call"}, "images"); !strings.Contains(out, "err this call") {
		t.Errorf("%q", out)
	}
}

// A daemon is started, stopped, killed, started again; what it has logged is that of the
// newest.
func TestDaemon(t *testing.T) {
	h := newHost(t)
	h.Start()
	h.WaitRunning()
	h.Stop()
	if h.IsKilled() || h.ExitCode() != 0 {
		t.Error("stopped in order, and said to be killed")
	}
	h.Start()
	h.WaitRunning()
	if n := strings.Count(string(h.NewestLog()), "running"); n != 1 {
		t.Errorf("the newest start has %d lines", n)
	}
	h.Kill()
	if !h.IsKilled() || h.ExitCode() != -1 {
		t.Error("killed, and said not to be")
	}
	h.Start("CRASH=1")
	if !h.WaitKilled(time.Minute) {
		t.Error("it killed itself, and is said not to have")
	}
	h.Start()
	h.WaitRunning()
	if h.WaitKilled(time.Millisecond) {
		t.Error("it was stopped after its time, and is said to have killed itself")
	}
	h.Start()
	h.WaitRunning()
	h.Signal(syscall.SIGTERM)
	<-h.Done()
	if n := strings.Count(string(h.Log()), "running"); n != 5 {
		t.Errorf("%d starts in the log, want 5", n)
	}
}

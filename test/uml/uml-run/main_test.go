package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"imagemanager.internal/internal/devmapper"
)

func TestMain(m *testing.M) {
	if os.Getenv("CIM_UML_CACHE") == "" { // the programs that the tests build lie elsewhere
		_ = os.Setenv("CIM_UML_CACHE", filepath.Join("..", "..", "..", ".cache", "guest-kernels"))
	}
	os.Exit(m.Run())
}

// build makes the program as the Makefile does; a test binary with the race detector
// cannot be a guest's init.
func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "uml-run")
	cmd := exec.Command("go", "build", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return path
}

func exitCodeOf(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	if err == nil {
		return 0
	}
	if !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return exit.ExitCode()
}

func TestRuns(t *testing.T) {
	t.Parallel()
	program := build(t)
	leaks := exitLeak
	if devmapper.Probe() == nil { // natively there is nothing to look for: the machine is not ours
		leaks = 0
	}
	for name, c := range map[string]struct {
		script, out, errOut string
		code                int
	}{
		"output and exit code": {`echo to stdout; echo to stderr >&2; exit 3`, "to stdout\n", "to stderr", 3},
		"bytes as they are":    {`printf 'a\r\nb\tc\n\000'`, "a\r\nb\tc\n\x00", "", 0},
		"a thin pool's target": {`dmsetup targets | grep -o thin-pool`, "thin-pool\n", "", 0},
		"killed":               {`kill -9 $$`, "", "", 128 + 9},
		"not found":            {`exec /no/such/program`, "", "", 127},
		"a loop left behind": {
			`truncate -s 1M $TMPDIR/x; losetup /dev/loop0 $TMPDIR/x; ` +
				`[ "$TMPDIR" = /tmp ] && losetup -d /dev/loop0; true`, "", "", leaks,
		},
		"a process left": {`sleep 5 >/dev/null 2>&1 & true`, "", "", leaks},
	} {
		cmd := exec.Command(program, "--", "/bin/sh", "-c", c.script)
		var out, errOut bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errOut
		code := exitCodeOf(t, cmd.Run())
		if code != c.code || out.String() != c.out || !strings.Contains(errOut.String(), c.errOut) {
			t.Errorf("%s: exit code %d, want %d; output %q, want %q; standard error %q",
				name, code, c.code, out.String(), c.out, errOut.String())
		}
		if code == exitLeak && !strings.Contains(errOut.String(), "left behind: ") {
			t.Errorf("%s: what was left is not named: %s", name, errOut.String())
		}
	}
}

// SIGINT reaches the program, and nothing of the run stays: no process, no file.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	program, tmp := build(t), t.TempDir()
	cmd := exec.Command(program, "/bin/sh", "-c",
		`trap 'echo interrupted; exit 5' INT; echo ready; while :; do sleep 0.1; done`)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	limit := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer limit.Stop()
	var seen []byte
	buf := make([]byte, 100)
	for !bytes.Contains(seen, []byte("ready\n")) {
		n, err := out.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, buf[:n]...)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	n, _ := out.Read(buf) // the end of the output is not an error
	if got := string(buf[:n]); got != "interrupted\n" {
		t.Errorf("after SIGINT the program said %q", got)
	}
	if code := exitCodeOf(t, cmd.Wait()); code != 5 {
		t.Errorf("exit code %d, want the program's 5", code)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left in %s: %v %v", tmp, left, err)
	}
}

// A guest that is silent is told from one that never spoke and from one that is well.
func TestSilence(t *testing.T) {
	alive := filepath.Join(t.TempDir(), aliveName)
	began := time.Now().Add(-time.Hour)
	if s := silentSince(alive, began); s < time.Hour {
		t.Errorf("never heard of since an hour, said to be silent for %s", s)
	}
	for age, want := range map[time.Duration]bool{0: false, 2 * time.Minute: true, 2 * time.Hour: true} {
		if err := os.WriteFile(alive, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-age)
		if err := os.Chtimes(alive, at, at); err != nil {
			t.Fatal(err)
		}
		if s := silentSince(alive, began); (s > time.Minute) != want {
			t.Errorf("touched %s ago, said to be silent for %s", age, s)
		}
	}
}

// A guest whose kernel stops is killed and the program run again: here the first guest's
// kernel is stopped by a signal.
func TestStoppedKernel(t *testing.T) {
	t.Parallel()
	if devmapper.Probe() == nil {
		return // natively there is no guest
	}
	program, tmp := build(t), t.TempDir()
	cmd := exec.Command(program, "/bin/sh", "-c", `echo started; sleep 3; echo finished`)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	if _, err := out.Read(buf); err != nil {
		t.Fatal(err)
	}
	kernels, err := exec.Command("pgrep", "-P", strconv.Itoa(cmd.Process.Pid)).Output()
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(kernels)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(-pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(out)
	if code := exitCodeOf(t, cmd.Wait()); code != 0 || err != nil || !strings.Contains(string(rest), "finished") {
		t.Errorf("exit code %d, output %q, %v", code, rest, err)
	}
	if !strings.Contains(errOut.String(), "once more in a new guest") {
		t.Errorf("said nothing of it: %s", errOut.String())
	}
}

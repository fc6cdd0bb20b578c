package main

import (
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
)

// Somebody at a terminal works in a shell: it has a prompt, a size, and an interrupt that
// ends what runs in it and not the shell.
func TestTerminal(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, build(t), "-t", "--", "bash", "--norc")
	cmd.Env = append(os.Environ(), "PS1=ready> ", "TERM=dumb")
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 33, Cols: 77})
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	seen := ""
	for _, step := range []struct{ until, then string }{
		{"ready> ", "stty size\r"},
		{"33 77\r\n", "dmsetup targets | grep -o thin-pool\r"},
		{"thin-pool\r\n", "sh -c 'echo sleeps; exec sleep 1000'\r"},
		{"\r\nsleeps\r\n", "\x03"},
		{"ready> ", "exit 5\r"},
	} {
		seen = waitText(t, terminal, seen, step.until)
		if _, err := terminal.WriteString(step.then); err != nil {
			t.Fatal(err)
		}
	}
	rest, _ := io.ReadAll(terminal) // fails when the other end is closed
	if code := exitCodeOf(t, cmd.Wait()); code != 5 {
		t.Errorf("exit code %d, want 5: %q", code, rest)
	}
}

// waitText reads until a text comes, and returns what came behind it.
func waitText(t *testing.T, from io.Reader, seen, text string) string {
	t.Helper()
	buf := make([]byte, 4096)
	for {
		if _, rest, found := strings.Cut(seen, text); found {
			return rest
		}
		n, err := from.Read(buf)
		seen += string(buf[:n])
		if err != nil {
			t.Fatalf("%v before %q: %q", err, text, seen)
		}
	}
}

// Without a terminal there is none to give.
func TestNoTerminal(t *testing.T) {
	t.Parallel()
	out, err := exec.Command(build(t), "-t", "--", "true").CombinedOutput()
	if code := exitCodeOf(t, err); code != exitGuest || !strings.Contains(string(out), "not a terminal") {
		t.Errorf("exit code %d, %s", code, out)
	}
}

package failpoint

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// A program with the tag dies where it is told to and names what it passed; one without
// knows nothing of it.
func TestHere(t *testing.T) {
	const all = "first\nsecond\nthird\n"
	for name, c := range map[string]struct {
		tags, at, out, trace string
		killed               bool
	}{
		"nowhere": {tags: "failpoint", out: all, trace: "at:first\nat:second\nat:third\n"},
		"by name": {
			tags: "failpoint", at: "at:second", out: "first\n", trace: "at:first\nat:second\n",
			killed: true,
		},
		"by number": {
			tags: "failpoint", at: "#3", out: "first\nsecond\n",
			trace: "at:first\nat:second\nat:third\n", killed: true,
		},
		"a number too high": {tags: "failpoint", at: "#4", out: all, trace: "at:first\nat:second\nat:third\n"},
		"without the tag":   {at: "#1", out: all},
	} {
		dir := t.TempDir()
		program, trace := filepath.Join(dir, "passes"), filepath.Join(dir, "trace")
		if text, err := exec.Command("go", "build", "-tags", c.tags, "-o", program, "./testdata/passes").
			CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		cmd := exec.Command(program)
		cmd.Env = append(os.Environ(), "CIM_CRASH_AT="+c.at, "CIM_CRASH_TRACE="+trace)
		out, err := cmd.Output()
		var exit *exec.ExitError
		killed := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
		if err != nil && !killed {
			t.Fatal(err)
		}
		passed, _ := os.ReadFile(trace) // none without the tag
		if string(out) != c.out || string(passed) != c.trace || killed != c.killed {
			t.Errorf("%s: printed %q, passed %q, killed %t; want %q, %q, %t",
				name, out, passed, killed, c.out, c.trace, c.killed)
		}
	}
}

// A passage of the place named waits for the file, and those before it do not.
func TestHold(t *testing.T) {
	dir := t.TempDir()
	program, until := filepath.Join(dir, "passes"), filepath.Join(dir, "until")
	if text, err := exec.Command("go", "build", "-tags", "failpoint", "-o", program, "./testdata/passes").
		CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), "CIM_HOLD_AT=at:second", "CIM_HOLD_UNTIL="+until)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "first" {
		t.Errorf("before the place: %q", lines.Text())
	}
	went := make(chan bool, 1) // buffered: nobody may ask
	go func() { went <- lines.Scan() }()
	held := time.NewTimer(50 * time.Millisecond)
	defer held.Stop()
	select {
	case <-went:
		t.Fatal("it did not wait")
	case <-held.C:
	}
	if err := os.WriteFile(until, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if !<-went || lines.Text() != "second" {
		t.Errorf("at the place: %q", lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

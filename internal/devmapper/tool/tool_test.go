package tool

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestFind(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if path, err := (Program{"mke2fs", "e2fsprogs"}).Find(); err != nil || !filepath.IsAbs(path) {
		t.Errorf("not on the PATH: %s, %v", path, err)
	}
	if _, err := (Program{"no-such-tool", "some-package"}).Find(); !errors.Is(err, ErrMissing) ||
		!strings.Contains(err.Error(), "install some-package") {
		t.Errorf("%v", err)
	}
}

func TestRun(t *testing.T) {
	out, err := Run(t.Context(), "/bin/sh", "-c", "echo out; echo err >&2")
	if err != nil || !slices.Equal(strings.Fields(out), []string{"out", "err"}) {
		t.Errorf("%q, %v", out, err)
	}
	_, err = Run(t.Context(), "/bin/sh", "-c", "echo what went wrong >&2; exit 3")
	if err == nil || !strings.Contains(err.Error(), "what went wrong") || !strings.Contains(err.Error(), "3") {
		t.Errorf("%v", err)
	}
}

// When the context ends, the child is killed with its own children: none goes on writing
// to the device.
func TestRunKillsTheGroup(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	check(t, unix.Mkfifo(fifo, 0o600))
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1) // buffered: the test may have failed
	go func() {
		_, err := Run(ctx, "/bin/sh", "-c", `(echo $BASHPID; exec sleep 1000) > "$0" & sleep 1000; true`, fifo)
		ended <- err
	}()
	f, err := os.Open(fifo) // waits for the grandchild, which has it open until it dies
	check(t, err)
	defer f.Close()
	check(t, f.SetReadDeadline(time.Now().Add(20*time.Second)))
	buf := make([]byte, 16)
	_, err = f.Read(buf)
	check(t, err)
	cause := errors.New("enough")
	cancel(cause)
	if err := <-ended; !errors.Is(err, cause) {
		t.Errorf("%v, want the cause", err)
	}
	if n, err := f.Read(buf); n != 0 || !errors.Is(err, io.EOF) { // end of file: nobody has it open
		t.Errorf("the grandchild lives: %d %v", n, err)
	}
}

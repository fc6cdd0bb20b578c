package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/creack/pty"
	"github.com/hinshun/vt10x"

	"imagemanager.internal/internal/store"
)

// monitor is a terminal with a program on it.
type monitor struct {
	t      *testing.T
	screen vt10x.Terminal
	master *os.File
	out    *bufio.Reader
	cmd    *exec.Cmd
}

// onMonitor runs a line of the shell on a terminal of this size. The program is in a
// directory of its own.
func onMonitor(t *testing.T, dir string, columns, rows int, line string) *monitor {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", line)
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "TERM=xterm")
	master, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: uint16(rows), Cols: uint16(columns)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = master.Close() })
	return &monitor{t, vt10x.New(vt10x.WithSize(columns, rows)), master, bufio.NewReader(master), cmd}
}

// built builds the program, and returns its directory.
func built(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", dir+"/consumer", ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir
}

// until shows what the program prints until the screen is as wanted. It reports whether
// it came to that before the program ended.
func (m *monitor) until(wanted func(screen string) bool) bool {
	m.t.Helper()
	for !wanted(m.screen.String()) {
		letter, _, err := m.out.ReadRune()
		if err != nil {
			return false
		}
		if _, err := m.screen.Write([]byte(string(letter))); err != nil {
			m.t.Fatal(err)
		}
	}
	return true
}

// shows waits until the screen has all these texts.
func (m *monitor) shows(texts ...string) {
	m.t.Helper()
	missing := ""
	if !m.until(func(screen string) bool {
		for _, missing = range texts {
			if !strings.Contains(screen, missing) {
				return false
			}
		}
		return true
	}) {
		m.t.Fatalf("%q is not on the screen:\n%s", missing, m.screen)
	}
}

// resize makes the terminal as large.
func (m *monitor) resize(columns, rows int) {
	m.t.Helper()
	if err := pty.Setsize(m.master, &pty.Winsize{Rows: uint16(rows), Cols: uint16(columns)}); err != nil {
		m.t.Fatal(err)
	}
	m.screen.Resize(columns, rows)
}

// press sends a key.
func (m *monitor) press(key string) {
	m.t.Helper()
	if _, err := m.master.WriteString(key); err != nil {
		m.t.Fatal(err)
	}
}

// Watch shows the daemon at work on a terminal of any size, and what happens meanwhile.
// Ctrl-C brings the screen back as it was.
func TestWatchOnATerminal(t *testing.T) {
	j := begun(t)
	j.fill()
	daemonPlayed(t, fixed{status: busyPipeline()})
	dir := built(t)
	m := onMonitor(t, dir, 100, 40, "trap : INT; echo before; NO_COLOR=1 consumer watch; echo after $?")
	m.shows("● consumer: ready", "Pool data:  ███████████████████░  95B of 100B (95.0 %)",
		"download  █░░░░    1 of 5 busy", "images/busy.tar", "3MiB of 12MiB  ██░░░░░░░░  25 %",
		`"images/\x1b[31mred.tar"`, "retry: download: timed out after 5m")
	if strings.Contains(m.screen.String(), "before") || m.screen.CursorVisible() {
		t.Errorf("the screen is not another one, without a cursor:\n%s", m.screen)
	}
	if dot := m.screen.Cell(0, 0); dot.Char != '●' || dot.FG != vt10x.DefaultFG {
		t.Errorf("the mark is %q in colour %v", dot.Char, dot.FG)
	}
	must[store.Attempt](j)(j.Begin(t.Context(), 6, store.StageDownload))
	m.shows("download  begun")
	m.resize(60, 40)
	m.until(func(screen string) bool { return !strings.Contains(screen, "3MiB of 12MiB") })
	m.shows("● consumer: ready", "images/busy.tar")
	m.press("\x03")
	m.shows("before", "after 0")
	if text := m.screen.String(); strings.Contains(text, "consumer: ready") || !m.screen.CursorVisible() ||
		m.screen.Mode()&vt10x.ModeWrap == 0 {
		t.Errorf("the screen is not as it was:\n%s", text)
	}
	if err := m.cmd.Wait(); err != nil {
		t.Error(err)
	}
	m = onMonitor(t, dir, 100, 40, "exec env NO_COLOR= consumer watch")
	m.shows("● consumer: ready")
	if dot := m.screen.Cell(0, 0); dot.FG != vt10x.Green {
		t.Errorf("the mark is in colour %v", dot.FG)
	}
	m.press("\x03")
	m.until(func(string) bool { return false })
	if err := m.cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// Without a terminal watch prints lines: one for the health when it changes, and the
// events.
func TestWatchPrintsLines(t *testing.T) {
	j := begun(t)
	img := j.pending("images/a.tar", "1")
	t.Setenv("LISTEN_ADDR", "")
	lines, end := followed(t, "watch")
	if have := next(t, lines); !strings.HasSuffix(have, "starts it; images 1: 1 pending") {
		t.Errorf("%q", have)
	}
	next(t, lines) // the titles
	if have := next(t, lines); !strings.Contains(have, "queued") {
		t.Errorf("%q", have)
	}
	must[store.Attempt](j)(j.Begin(t.Context(), img.ID, store.StageDownload))
	if have := next(t, lines); !strings.Contains(have, "begun") {
		t.Errorf("%q", have)
	}
	holdDaemonLock(t)
	if have := next(t, lines); !strings.Contains(have, "consumer: runs, but does not answer") {
		t.Errorf("%q", have)
	}
	if code := end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// Watch says why it cannot begin, and leaves the screen alone.
func TestWatchWithoutADatabase(t *testing.T) {
	t.Setenv("STATE_DIR", filepath.Join(t.TempDir(), "none"))
	code, text := perform(t, "watch")
	if code != 3 || !strings.Contains(text, "no database") || strings.Contains(text, "\x1b") {
		t.Errorf("exit code %d: %s", code, text)
	}
}

package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"imagemanager.internal/internal/store"
	"imagemanager.internal/test/emulator"
	tarballs "imagemanager.internal/test/images"
)

// A bucket that is written as a URI is refused before a message is touched.
func TestBucketNameSlip(t *testing.T) {
	h := newHost(t)
	h.Check(h.Cloud.Purge(t.Context())) // the test event
	for i := range 5 {
		h.put(fmt.Sprintf("images/%d.tar", i), tarballs.RootFS("hello", 3))
	}
	out, code := h.TryWith([]string{"S3_BUCKET=s3://" + h.Cloud.Name + "/images/", "SQS_WAIT=0"}, "run")
	for _, says := range []string{"S3_BUCKET", h.Cloud.Name + ",", "S3_PREFIX", "SQS_WAIT"} {
		if code != 2 || !strings.Contains(out, says) {
			t.Errorf("exit code %d, want 2 and %q in: %s", code, says, out)
		}
	}
	n, err := h.Cloud.Visible(t.Context())
	h.Check(err)
	if n != 5 {
		t.Errorf("%d messages of 5 are there", n)
	}
	h.Start()
	for i := range 5 {
		h.WaitActive(fmt.Sprintf("images/%d.tar", i))
	}
	h.WaitDrained()
	h.Stop()
	h.Look()
}

// The process is stopped for longer than the visibility time-out, as by a pause of the
// machine: the message comes again, and the image is made once.
func TestPausedProcess(t *testing.T) {
	h := newHost(t, "SQS_VISIBILITY=10s")
	h.Check(h.Cloud.Purge(t.Context())) // the test event
	h.Start()
	h.emulator().Fault(emulator.Fault{Op: "GetObject", Rate: 100_000, Times: 3})
	h.put("images/a.tar", tarballs.RootFS("hello", 150))
	h.waitEvent("images/a.tar", "begun download")
	h.Signal(syscall.SIGSTOP)
	h.WaitFor("the message is visible again", func() bool {
		n, err := h.Cloud.Visible(t.Context())
		h.Check(err)
		return n == 1
	})
	h.Signal(syscall.SIGCONT)
	img := h.WaitActive("images/a.tar")
	h.WaitDrained()
	if img.Failures != 0 {
		t.Errorf("%d failures are counted", img.Failures)
	}
	h.Stop()
	h.Look()
}

// There is no HOME, PATH, USER or TMPDIR, as a minimal service manager starts programs:
// the daemon works.
func TestBareEnvironment(t *testing.T) {
	h := newHost(t)
	cmd := exec.Command(h.Program(), "run")
	cmd.Env = slices.DeleteFunc(h.Environment(), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains([]string{"HOME", "PATH", "USER", "TMPDIR"}, name)
	})
	h.StartAs(cmd)
	h.checkReadable(h.makeFirst())
	h.WaitDrained()
	h.Stop()
	h.Look()
}

// The process may open 64 files only: twelve images in parts are made all the same.
func TestFewDescriptors(t *testing.T) {
	h := newHost(t, "MAX_ATTEMPTS=3")
	h.StartAs(exec.Command("sh", "-c", `ulimit -n 64; exec "$0" run`, h.Program()))
	for i := range 12 {
		h.put(fmt.Sprintf("images/%02d.tar", i), tarballs.RootFS("hello", 3, big(18)))
	}
	h.WaitLonger(time.Minute, "all are active", func() bool { return h.countImages(store.StateActive) == 12 })
	h.WaitDrained()
	h.Stop()
	h.Look()
}

// A service manager sets an odd umask: the modes of an image are those of its archive.
func TestUmask(t *testing.T) {
	for _, mask := range []string{"077", "777"} {
		t.Run(mask, func(t *testing.T) {
			h := newHost(t, "MAX_ATTEMPTS=2")
			h.StartAs(exec.Command("sh", "-c", `umask `+mask+`; exec "$0" run`, h.Program()))
			img := h.makeFirst()
			h.WaitDrained()
			h.Stop()
			h.checkReadable(img)
			h.Consumer("verify", "--all")
			h.Look()
		})
	}
}

// stopUnlogged is Stop for a daemon that must be running, but whose log nobody can read.
func (h *host) stopUnlogged() {
	h.T.Helper()
	h.Signal(syscall.SIGTERM)
	<-h.Done()
	if code := h.ExitCode(); code != 0 {
		h.Errorf("exit code %d", code)
	}
}

// Whoever reads the log goes away, as at a restart of journald or the end of a pipe: the
// daemon goes on, without lines, also its mke2fs does, and stops in order when it is told
// to.
func TestLogReaderGone(t *testing.T) {
	h := newHost(t)
	r, w, err := os.Pipe()
	h.Check(err)
	cmd := exec.Command(h.Program(), "run")
	cmd.Stderr = w
	h.StartAs(cmd)
	h.Check(w.Close())
	lines := bufio.NewScanner(r)
	for lines.Scan() && !strings.Contains(lines.Text(), `"message":"running"`) {
	}
	h.Check(errors.Join(lines.Err(), r.Close()))
	h.checkReadable(h.makeFirst())
	h.WaitDrained()
	h.stopUnlogged()
	h.Look()
}

// Nobody reads from the beginning, and what is written to the log fails in another way,
// as on a full disk: the daemon works.
func TestLogUnwritable(t *testing.T) {
	h := newHost(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	h.Check(err)
	defer full.Close()
	r, w, err := os.Pipe()
	h.Check(err)
	h.Check(r.Close())
	defer w.Close()
	for i, log := range []*os.File{full, w} {
		cmd := exec.Command(h.Program(), "run")
		cmd.Stderr = log
		h.StartAs(cmd)
		key := fmt.Sprintf("images/%d.tar", i)
		h.put(key, tarballs.RootFS("hello", 3))
		h.checkReadable(h.WaitActive(key))
		h.WaitDrained()
		h.stopUnlogged()
	}
	h.Look()
}

// Whoever reads the log stands still, and the pipe is full: the daemon works and stops
// all the same. When somebody reads again, the log goes on.
func TestLogReaderStuck(t *testing.T) {
	h := newHost(t)
	r, w, err := os.Pipe()
	h.Check(err)
	defer r.Close()
	defer w.Close()
	fd := int(w.Fd())
	h.Check(syscall.SetNonblock(fd, true))
	for err == nil {
		_, err = syscall.Write(fd, make([]byte, 4096))
	}
	h.Check(syscall.SetNonblock(fd, false)) // the daemon's end is this one
	cmd := exec.Command(h.Program(), "run")
	cmd.Stderr = w
	h.StartAs(cmd)
	h.checkReadable(h.makeFirst())
	h.WaitDrained()
	go func() { _, _ = io.Copy(io.Discard, io.LimitReader(r, 1<<16)) }() // what filled it
	h.put("images/b.tar", tarballs.RootFS("hello", 3))
	h.checkReadable(h.WaitActive("images/b.tar"))
	h.WaitDrained()
	h.stopUnlogged()
	h.Look()
}

// A command whose output nobody reads ends as other programs do: by SIGPIPE, without a
// word.
func TestOutputReaderGone(t *testing.T) {
	h := newHost(t)
	r, w, err := os.Pipe()
	h.Check(err)
	h.Check(r.Close())
	defer w.Close()
	var errOut strings.Builder
	cmd := exec.Command(h.Program(), "pool", "status", "--json")
	cmd.Env, cmd.Stdout, cmd.Stderr = h.Environment(), w, &errOut
	err = cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("%v, want the end by a signal", err)
	}
	if st, ok := exit.Sys().(syscall.WaitStatus); !ok || st.Signal() != syscall.SIGPIPE || errOut.Len() > 0 {
		t.Errorf("%v, %q", err, errOut.String())
	}
}

// lock takes one of the host's locks, as a command that is at work does.
func (h *host) lock(name string) (unlock func()) {
	h.T.Helper()
	f, err := os.OpenFile(filepath.Join(h.State, name), os.O_CREATE|os.O_RDWR, 0o600)
	h.Check(err)
	h.Check(syscall.Flock(int(f.Fd()), syscall.LOCK_EX))
	return func() { h.Check(f.Close()) }
}

// A daemon that is started while a command works on the pool waits, says for whom, and
// can be stopped meanwhile; then it starts.
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
	h.checkReadable(h.makeFirst())
	h.WaitDrained()
	h.Stop()
	h.Look()
}

// Commands that look, over and over, do not keep a daemon from starting, nor the daemon
// them from looking.
func TestStartsBesideCommands(t *testing.T) {
	h := newHost(t)
	h.Start()
	h.makeFirst()
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

// Metrics and health are there while the daemon still starts, and readiness says how far
// it is; it also says that the daemon stops.
func TestListensBeforeRecovery(t *testing.T) {
	h := newHost(t)
	h.put("images/a.tar", tarballs.RootFS("hello", 3, big(60)))
	unlock := h.lock("pool.lock") // as a command at work on the pool
	h.Start()
	h.WaitFor("/readyz says that it recovers", func() bool {
		code, text := h.GetEarly("/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(text, "recovering")
	})
	if code, text := h.GetEarly("/metrics"); code != http.StatusOK ||
		!strings.Contains(text, "imagemanager_ready 0\n") {
		t.Errorf("/metrics: %d, %s", code, text)
	}
	if code, _ := h.GetEarly("/healthz"); code != http.StatusOK {
		t.Errorf("/healthz: %d", code)
	}
	unlock()
	h.waitResumed()
	h.waitEvent("images/a.tar", "step unpack formatted")
	h.Signal(syscall.SIGTERM)
	h.WaitFor("/readyz says that it stops", func() bool {
		code, text := h.GetEarly("/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(text, "stopping")
	})
	<-h.Done()
	if code := h.ExitCode(); code != 0 {
		t.Errorf("after a stop: exit code %d", code)
	}
	h.Start()
	h.WaitActive("images/a.tar")
	h.WaitDrained()
	h.Stop()
	h.Look()
}

// Package host is a machine of the tests: a state directory with its pool, the daemon,
// and the S3 and SQS it talks to. The end-to-end, crash, power-cut and soak tests embed
// it in a type of their own.
//
// Functions that wait are named Wait…, and fail the test after a minute; those that ask
// are named Is….
package host

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
	"imagemanager.internal/test/cloud"
	"imagemanager.internal/test/invariants"
)

// Host is one machine. T, State and Env are set by whoever makes it; then comes OpenLog.
type Host struct {
	T      *testing.T        // whose failures they are
	State  string            // the state directory
	Env    []string          // settings of the daemon and of commands, over those that every host has
	Cloud  *cloud.Bucket     // nil if there is none, which is enough for commands
	Store  *store.Store      // the journal, beside the daemon; see OpenStore
	Failed func(text string) // called with each failure before T is; may be nil

	log    *os.File
	began  int64 // where the log of the newest start begins
	daemon *daemon
}

// daemon is a process that was started.
type daemon struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how; set before done is closed
}

// NeedPool skips the test on a machine without thin pools. With CIM_REQUIRE_DM=1, as in
// `make test-uml`, it fails the test instead.
func NeedPool(t testing.TB) {
	t.Helper()
	err := devmapper.Probe()
	if err == nil {
		return
	}
	if os.Getenv("CIM_REQUIRE_DM") == "1" {
		t.Fatalf("a thin pool is required: %v", err)
	}
	t.Skipf("needs a thin pool, run by `make test-uml`: %v", err)
}

// Check fails the test if there is an error.
func (h *Host) Check(err error) {
	h.T.Helper()
	if err != nil {
		h.note(err.Error())
		h.T.Fatal(err)
	}
}

// Errorf fails the test, which goes on.
func (h *Host) Errorf(format string, args ...any) {
	h.T.Helper()
	h.note(fmt.Sprintf(format, args...))
	h.T.Errorf(format, args...)
}

func (h *Host) note(text string) {
	if h.Failed != nil {
		h.Failed(text)
	}
}

// Environment returns the environment of the daemon and of commands.
func (h *Host) Environment() []string {
	url, bucket, queue := "http://127.0.0.1:1", "none", "none"
	if h.Cloud != nil {
		url, bucket, queue = h.Cloud.URL, h.Cloud.Name, h.Cloud.Queue
	}
	env := append(os.Environ(),
		"AWS_ENDPOINT_URL="+url, "AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=x", "S3_BUCKET="+bucket,
		"SQS_QUEUE_URL="+queue,
		"STATE_DIR="+h.State, "LISTEN_ADDR=127.0.0.1:0", "LOG_LEVEL=debug", "DEVICE_SIZE=64MiB",
		"SQS_WAIT=1s", "SQS_VISIBILITY=10s", "RETRY_BACKOFF=1ms", "SHUTDOWN_GRACE=1s")
	return append(env, h.Env...)
}

// Program is the consumer that the Makefile built.
func (h *Host) Program() string {
	h.T.Helper()
	path := os.Getenv("CONSUMER_BIN")
	if path == "" {
		h.Check(errors.New("CONSUMER_BIN is not set: run `make build-test` and name bin/consumer-failpoint there"))
	}
	return path
}

// Consumer runs a command that must succeed and returns what it prints.
func (h *Host) Consumer(args ...string) string {
	h.T.Helper()
	out, code := h.Try(args...)
	if code != 0 {
		h.Check(fmt.Errorf("consumer %s: exit code %d\n%s", strings.Join(args, " "), code, out))
	}
	return out
}

// Try runs a command and returns what it prints, standard error last, and its exit code:
// -1 if it was killed.
func (h *Host) Try(args ...string) (string, int) {
	h.T.Helper()
	return h.TryWith(nil, args...)
}

// TryWith is Try with more in the environment.
func (h *Host) TryWith(env []string, args ...string) (string, int) {
	h.T.Helper()
	cmd := exec.Command(h.Program(), args...) //nolint:noctx // the context has ended when the test cleans up
	cmd.Env = append(h.Environment(), env...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.Check(err)
	}
	return out.String() + errOut.String(), cmd.ProcessState.ExitCode()
}

// Database is the journal's file.
func (h *Host) Database() string { return filepath.Join(h.State, "consumer.db") }

// OpenStore opens the journal.
func (h *Host) OpenStore() {
	h.T.Helper()
	var err error
	h.Store, err = store.OpenExisting(h.T.Context(), h.Database())
	h.Check(err)
}

// OpenLog opens the file that the daemon logs to, at its end.
func (h *Host) OpenLog(path string) {
	h.T.Helper()
	var err error
	h.log, err = os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	h.Check(err)
}

// Log returns all that daemons have logged.
func (h *Host) Log() []byte {
	h.T.Helper()
	text, err := os.ReadFile(h.log.Name())
	h.Check(err)
	return text
}

// NewestLog returns what the daemon started last has logged.
func (h *Host) NewestLog() []byte {
	h.T.Helper()
	return h.Log()[h.began:]
}

// ShowLog prints the warnings, the errors and the end of the log with the test's output.
func (h *Host) ShowLog() {
	text, _ := os.ReadFile(h.log.Name()) // the test has failed already
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, `"level":"warn"`) || strings.Contains(line, `"level":"error"`) {
			h.T.Logf("daemon log: %s", line)
		}
	}
	h.T.Logf("daemon log, its end:\n%s", text[max(0, len(text)-16000):])
}

// Start starts the daemon; env is for this start only.
func (h *Host) Start(env ...string) {
	h.T.Helper()
	cmd := exec.Command(h.Program(), "run") //nolint:noctx // ended by Stop or Kill
	cmd.Env = append(h.Environment(), env...)
	h.StartAs(cmd)
}

// StartAs starts the daemon by a command of the test's own. An unset environment or
// standard error becomes the host's.
func (h *Host) StartAs(cmd *exec.Cmd) {
	h.T.Helper()
	info, err := h.log.Stat()
	h.Check(err)
	h.began = info.Size()
	if cmd.Env == nil {
		cmd.Env = h.Environment()
	}
	if cmd.Stderr == nil {
		cmd.Stderr = h.log
	}
	d := &daemon{cmd: cmd, done: make(chan struct{})}
	h.Check(d.cmd.Start())
	go func() {
		d.err = d.cmd.Wait()
		close(d.done)
	}()
	h.daemon = d
}

// Signal sends the daemon a signal.
func (h *Host) Signal(sig syscall.Signal) {
	h.T.Helper()
	h.Check(h.daemon.cmd.Process.Signal(sig))
}

// PID is the daemon's process id.
func (h *Host) PID() int { return h.daemon.cmd.Process.Pid }

// Stop ends the daemon with SIGTERM. It must exit with 0.
func (h *Host) Stop() {
	h.T.Helper()
	h.WaitRunning() // before, it does not listen to signals yet
	h.Signal(syscall.SIGTERM)
	<-h.daemon.done
	if h.daemon.err != nil {
		h.Errorf("daemon: %v", h.daemon.err)
	}
}

// Kill ends the daemon with SIGKILL.
func (h *Host) Kill() {
	_ = h.daemon.cmd.Process.Kill() // it may have ended
	<-h.daemon.done
}

// Done is closed when the daemon has ended.
func (h *Host) Done() <-chan struct{} { return h.daemon.done }

// ExitCode returns the exit code of the daemon, which must have ended; -1 after a signal.
func (h *Host) ExitCode() int { return h.daemon.cmd.ProcessState.ExitCode() }

// IsKilled reports whether SIGKILL ended the daemon, which must have ended.
func (h *Host) IsKilled() bool {
	var exit *exec.ExitError
	if !errors.As(h.daemon.err, &exit) {
		return false
	}
	st, ok := exit.Sys().(syscall.WaitStatus)
	return ok && st.Signaled() && st.Signal() == syscall.SIGKILL
}

// Release ends the daemon and closes the log and the journal. The pool stays attached.
func (h *Host) Release() {
	h.T.Helper()
	if h.daemon != nil {
		h.Kill()
	}
	if h.Store != nil {
		h.Check(h.Store.Close())
	}
	h.Check(h.log.Close())
}

// Abandon ends the daemon of a host in which something failed, shows its log and leaves
// everything else as it is.
func (h *Host) Abandon() {
	if h.daemon != nil {
		h.Kill()
	}
	h.ShowLog()
}

// Close ends the daemon and detaches the pool, whatever the test left. It shows the log
// of a failed test.
func (h *Host) Close() {
	h.T.Helper()
	if h.daemon != nil {
		h.Kill()
	}
	if out, code := h.Try("pool", "detach"); code != 0 {
		h.Errorf("pool detach: %d %s", code, out)
	}
	if h.T.Failed() {
		h.ShowLog()
	}
	h.Release()
}

var address = regexp.MustCompile(`"addr":"([^"]+)"`)

// Get sends an HTTP request to the running daemon.
func (h *Host) Get(path string) (code int, body string) {
	h.T.Helper()
	h.WaitRunning()
	return h.GetEarly(path)
}

// Address is where the daemon listens; it waits until it does.
func (h *Host) Address() string {
	h.T.Helper()
	var addr [][]byte
	h.WaitFor("the daemon listens", func() bool {
		addr = address.FindSubmatch(h.NewestLog())
		return addr != nil
	})
	return string(addr[1])
}

// GetEarly sends an HTTP request to the daemon as soon as it listens.
func (h *Host) GetEarly(path string) (code int, body string) {
	h.T.Helper()
	req, err := http.NewRequestWithContext(h.T.Context(), http.MethodGet, "http://"+h.Address()+path, http.NoBody)
	h.Check(err)
	resp, err := http.DefaultClient.Do(req)
	h.Check(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	h.Check(err)
	return resp.StatusCode, string(text)
}

// ImagesOf returns the images of a key, the newest last.
func (h *Host) ImagesOf(key string) []store.Image {
	h.T.Helper()
	images, err := h.Store.ByKey(h.T.Context(), key)
	h.Check(err)
	return images
}

// Look checks the invariants, which hold while no daemon changes anything, and returns
// what it found.
func (h *Host) Look() invariants.Host {
	h.T.Helper()
	found, err := invariants.Look(h.T.Context(), h.Store, h.State)
	h.Check(err)
	for _, b := range found.Broken() {
		h.Errorf("%s", b)
	}
	return found
}

package crash

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"imagemanager.internal/internal/store"
)

// host is a machine: a state directory and its pool on a disk that outlives the kernel, and a daemon.
type host struct {
	t      *testing.T // the case in hand
	w      *world
	dir    string
	store  *store.Store
	daemon *exec.Cmd
	ended  chan error // of the daemon
	log    *os.File
	began  int64 // where the log of the newest start begins
	at     time.Time
}

// imagesPerHost is when a host gives way to a new one: a start looks at every image.
const imagesPerHost = 8

// theHost returns the present host; a new one, with a pool, if there is none or it has become full.
func theHost(t *testing.T) *host {
	t.Helper()
	w := theWorld(t)
	if h := w.host; h != nil && book.Step == 0 && len(book.Keys) >= imagesPerHost {
		h.t = t
		h.retire()
	}
	h := presentHost(t)
	if h.store == nil {
		h.consumer(h.createPool()...)
		h.openStore()
	}
	return h
}

func (h *host) createPool() []string {
	return []string{"pool", "create", "--name", h.w.Name, "--data-size", "1GiB", "--thins", "200"}
}

// presentHost returns the host of this boot, else that of the boot before, else a new one that has no pool.
func presentHost(t *testing.T) *host {
	t.Helper()
	w := theWorld(t)
	if w.host != nil {
		w.host.t = t
		return w.host
	}
	dir := func() string { return filepath.Join(os.TempDir(), fmt.Sprintf("crash-%d", book.Hosts)) }
	if _, err := os.Stat(dir()); err != nil {
		book.Hosts++
		book.Keys, book.Deleted, book.Lost = nil, map[string]bool{}, 0
		book.save()
		check(t, os.Mkdir(dir(), 0o700))
		check(t, syncDir(os.TempDir())) // a kernel may be killed before anything else is
	}
	h := &host{t: t, w: w, dir: dir()}
	var err error
	h.log, err = os.OpenFile(filepath.Join(h.dir, "daemon.log"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	check(t, err)
	w.open(t)
	w.host = h
	if _, err := os.Stat(h.database()); err == nil {
		h.openStore()
	}
	return h
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func (h *host) database() string { return filepath.Join(h.dir, "state", "consumer.db") }

func (h *host) openStore() {
	h.t.Helper()
	var err error
	h.store, err = store.OpenExisting(h.t.Context(), h.database())
	h.check(err)
}

// retire proves every image of the host by its seal, detaches the pool and removes all.
func (h *host) retire() {
	h.t.Helper()
	h.consumer("verify", "--all")
	h.remove()
}

func (h *host) remove() {
	h.t.Helper()
	h.consumer("pool", "detach")
	h.check(errors.Join(h.store.Close(), h.log.Close(), os.RemoveAll(h.dir)))
	h.w.host = nil
}

// abandon leaves a host in which a case failed as it is, after it has shown its log, and out of the way.
func (w *world) abandon(t *testing.T) {
	h := w.host
	h.t = t
	if h.daemon != nil {
		h.kill()
	}
	text, _ := os.ReadFile(h.log.Name())
	t.Logf("the daemon's log, its end:\n%s", text[max(0, len(text)-8000):])
	if out, code := h.try(nil, "pool", "detach"); code != 0 {
		t.Logf("pool detach: %s", out)
	}
	_ = os.Rename(h.dir, h.dir+"-failed")
	w.host = nil
}

func (h *host) check(err error) {
	h.t.Helper()
	check(h.t, err)
}

func (h *host) errorf(format string, args ...any) {
	h.t.Helper()
	book.failed(h.t, fmt.Sprintf(format, args...))
	h.t.Errorf(format, args...)
}

func (h *host) env() []string {
	return append(os.Environ(),
		"AWS_ENDPOINT_URL="+h.w.URL, "AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=x", "S3_BUCKET="+h.w.Name, "SQS_QUEUE_URL="+h.w.Queue,
		"STATE_DIR="+filepath.Join(h.dir, "state"), "LISTEN_ADDR=", "DEVICE_SIZE=64MiB", "SQS_WAIT=1s", "SQS_DRAIN=50ms",
		"SQS_VISIBILITY=600s", // a recovery does not wait for the queue
		"RETRY_BACKOFF=1ms", "SHUTDOWN_GRACE=5s")
}

// consumer runs a command that must succeed.
func (h *host) consumer(args ...string) {
	h.t.Helper()
	if out, code := h.try(nil, args...); code != 0 {
		h.check(fmt.Errorf("consumer %s: exit code %d: %s", strings.Join(args, " "), code, out))
	}
}

// try runs a command and returns what it prints and its exit code, -1 if it was killed.
func (h *host) try(env []string, args ...string) (string, int) {
	h.t.Helper()
	cmd := exec.Command(program(h.t), args...)
	cmd.Env = append(h.env(), env...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.check(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func program(t *testing.T) string {
	t.Helper()
	path := os.Getenv("CONSUMER_BIN")
	if path == "" {
		check(t, errors.New("CONSUMER_BIN is not set: run `make test-crash`, or build ./cmd/consumer with -tags failpoint and name it there"))
	}
	return path
}

// start starts the daemon; env is for this start only.
func (h *host) start(env ...string) {
	h.t.Helper()
	info, err := h.log.Stat()
	h.check(err)
	h.began, h.at = info.Size(), time.Now()
	h.daemon = exec.Command(program(h.t), "run")
	h.daemon.Env = append(h.env(), env...)
	h.daemon.Stderr = h.log
	h.check(h.daemon.Start())
	h.ended = make(chan error, 1) // buffered: one result
	go func(d *exec.Cmd, ended chan<- error) { ended <- d.Wait() }(h.daemon, h.ended)
}

// isRunning tells whether the daemon has recovered and takes messages.
func (h *host) isRunning() bool {
	h.t.Helper()
	text := make([]byte, 64<<10)
	n, _ := h.log.ReadAt(text, h.began) // the end of the file is no error
	return bytes.Contains(text[:n], []byte(`"message":"running"`))
}

// running waits until the daemon has recovered.
func (h *host) running() {
	h.t.Helper()
	eventually(h.t, "the daemon runs", func() bool {
		select {
		case err := <-h.ended:
			h.daemon = nil
			h.check(fmt.Errorf("the daemon ended: %w", err))
		default:
		}
		return h.isRunning()
	})
}

// recovers starts the daemon after a kill and measures how long it takes to run.
func (h *host) recovers(env ...string) {
	h.t.Helper()
	h.start(env...)
	h.running()
	book.Recovery = append(book.Recovery, time.Since(h.at))
}

// stop ends the daemon in order.
func (h *host) stop() {
	h.t.Helper()
	h.running()
	h.check(h.daemon.Process.Signal(syscall.SIGTERM))
	err := <-h.ended
	h.daemon = nil
	h.check(err)
}

// kill ends it as kill -9 does.
func (h *host) kill() {
	_ = h.daemon.Process.Kill() // it may have ended
	<-h.ended                   //nolint:errcheck // it was killed
	h.daemon = nil
}

// dies waits for a daemon that is to die at a failpoint, by SIGKILL or with all of the kernel, and tells whether it did: no longer
// when over says that there is nothing to come.
func (h *host) dies(over func() bool) bool {
	h.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var since time.Time
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		select {
		case err := <-h.ended:
			h.daemon = nil
			return killed(err)
		case <-tick.C:
		}
		if !over() {
			continue
		}
		if since.IsZero() {
			since = time.Now()
		}
		if time.Since(since) > 3*time.Second { // what it was to die at follows closely, if it follows
			break
		}
	}
	h.kill()
	return false
}

func killed(err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	st, ok := exit.Sys().(syscall.WaitStatus)
	return ok && st.Signaled() && st.Signal() == syscall.SIGKILL
}

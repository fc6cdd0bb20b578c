// Package e2e runs the real daemon against a real thin pool and an emulated S3 and SQS.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
	"imagemanager.internal/test/cloud"
	"imagemanager.internal/test/emulator"
	"imagemanager.internal/test/invariants"
)

// host is one machine: a state directory, a pool, a daemon; and the S3 and SQS it talks to.
type host struct {
	t      *testing.T
	dir    string
	cloud  *cloud.Bucket
	env    []string
	store  *store.Store
	daemon *exec.Cmd
	log    *os.File
	began  int64 // where the log of the newest start begins

	unclaimed map[string]int // by kind: what the test put there, and no row of the journal claims
}

// manyForeign: more or less of them, while the daemon looks.
const manyForeign = -1

// needPool skips where there is no thin pool and nobody insists on one; `make test-uml` does.
func needPool(t *testing.T) {
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

// newHost makes the bucket, the queue and the pool. env overrides the daemon's settings.
func newHost(t *testing.T, env ...string) *host {
	t.Helper()
	return newSizedHost(t, "2GiB", env...)
}

// newSizedHost is newHost with a pool of that size.
func newSizedHost(t *testing.T, size string, env ...string) *host {
	t.Helper()
	h := bareHost(t)
	h.install(poolName(t), size, env)
	return h
}

// bareHost makes the bucket and the queue, and neither state directory nor pool.
func bareHost(t *testing.T) *host {
	t.Helper()
	needPool(t)
	h := &host{t: t, dir: t.TempDir()}
	c := cloud.Connect(os.Getenv("E2E_ENDPOINT_URL"))
	if c.URL == "" {
		var err error
		c, err = cloud.Emulate(t.TempDir(), nil)
		h.check(err)
	}
	t.Cleanup(func() { h.check(c.Close()) })
	var err error
	h.cloud, err = c.Bucket(t.Context(), "e2e-"+uuid.NewString())
	h.check(err)
	h.check(h.cloud.Notify(t.Context()))
	return h
}

// faulty returns the emulator, for tests that make it fail. Another S3 and SQS cannot be made to: the test is skipped there, and only
// there.
func (h *host) faulty() *emulator.Server {
	h.t.Helper()
	if h.cloud.Emulator == nil {
		h.t.Skip("E2E_ENDPOINT_URL is set: only the emulator fails on demand")
	}
	return h.cloud.Emulator
}

// another makes one more machine with a pool of its own, on the same queue.
func (h *host) another(name string, env ...string) *host {
	h.t.Helper()
	more := &host{t: h.t, dir: h.t.TempDir(), cloud: h.cloud}
	more.install(name, "2GiB", env)
	return more
}

// install makes the machine's state directory and pool; args are for `pool create`.
func (h *host) install(pool, size string, env []string, args ...string) {
	h.t.Helper()
	h.unclaimed = map[string]int{}
	h.env = append(os.Environ(),
		"AWS_ENDPOINT_URL="+h.cloud.URL, "AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=x", "S3_BUCKET="+h.cloud.Name, "SQS_QUEUE_URL="+h.cloud.Queue,
		"STATE_DIR="+filepath.Join(h.dir, "state"), "LISTEN_ADDR=127.0.0.1:0", "LOG_LEVEL=debug",
		"DEVICE_SIZE=256MiB", "SQS_WAIT=1s", "SQS_VISIBILITY=10s", "RETRY_BACKOFF=1ms", "SHUTDOWN_GRACE=1s",
		"RECONCILE_INTERVAL=1s")
	h.env = append(h.env, env...)
	var err error
	if h.log, err = os.Create(filepath.Join(h.dir, "daemon.log")); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(h.end)
	h.consumer(append([]string{"pool", "create", "--name", pool, "--data-size", size, "--thins", "100"}, args...)...)
	if h.store, err = store.OpenExisting(h.t.Context(), filepath.Join(h.dir, "state", "consumer.db")); err != nil {
		h.t.Fatal(err)
	}
}

// poolName is short and unique: tests may run one after the other in one kernel.
func poolName(t *testing.T) string {
	name := strings.ToLower(strings.TrimPrefix(t.Name(), "Test"))
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, name)[:min(len(name), 24)]
}

func (h *host) check(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// consumer runs a command that must succeed and returns what it prints.
func (h *host) consumer(args ...string) string {
	h.t.Helper()
	out, code := h.try(args...)
	if code != 0 {
		h.t.Fatalf("consumer %s: exit code %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// try runs a command and returns what it prints and its exit code.
func (h *host) try(args ...string) (string, int) {
	h.t.Helper()
	cmd := exec.Command(program(h.t), args...)
	cmd.Env = h.env
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.t.Fatal(err)
	}
	return out.String() + errOut.String(), cmd.ProcessState.ExitCode()
}

// program is the consumer that the Makefile built.
func program(t *testing.T) string {
	t.Helper()
	path := os.Getenv("CONSUMER_BIN")
	if path == "" {
		t.Fatal("CONSUMER_BIN is not set: run `make test-uml`, or build ./cmd/consumer with -tags failpoint and name it there")
	}
	return path
}

// start starts the daemon; env is for this start only.
func (h *host) start(env ...string) {
	h.t.Helper()
	h.daemon = exec.Command(program(h.t), "run")
	h.daemon.Env = append(slices.Clone(h.env), env...)
	h.daemon.Stderr = h.log
	var err error
	h.began, err = h.log.Seek(0, io.SeekEnd)
	h.check(err)
	h.check(h.daemon.Start())
}

// running waits until the daemon started last has recovered and takes messages.
func (h *host) running() {
	h.t.Helper()
	h.eventually("the daemon runs", func() bool {
		return bytes.Contains(h.newest(), []byte(`"message":"running"`))
	})
}

// stop ends the daemon by SIGTERM; it must exit with 0.
func (h *host) stop() {
	h.t.Helper()
	h.running() // before, it does not listen to signals yet
	h.claimed()
	h.check(h.daemon.Process.Signal(syscall.SIGTERM))
	if err := h.daemon.Wait(); err != nil {
		h.t.Errorf("daemon: %v", err)
	}
	h.daemon = nil
}

// newest returns what the daemon started last has logged.
func (h *host) newest() []byte {
	h.t.Helper()
	text, err := os.ReadFile(h.log.Name())
	h.check(err)
	return text[h.began:]
}

// get asks the running daemon.
func (h *host) get(path string) (code int, body string) {
	h.t.Helper()
	h.running()
	addr := regexp.MustCompile(`"addr":"([^"]+)"`).FindSubmatch(h.newest())
	if addr == nil {
		h.t.Fatal("the log has no address")
	}
	req, err := http.NewRequestWithContext(h.t.Context(), http.MethodGet, "http://"+string(addr[1])+path, http.NoBody)
	h.check(err)
	resp, err := http.DefaultClient.Do(req)
	h.check(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	h.check(err)
	return resp.StatusCode, string(text)
}

// claimed waits until the running daemon's gauges know of nothing that no row of the journal claims, but what the test put there: they
// are as of its last reconcile.
func (h *host) claimed() {
	h.t.Helper()
	h.eventually("the gauges of what is unclaimed are right", func() bool {
		_, text := h.get("/metrics")
		gauges := regexp.MustCompile(`(?m)^imagemanager_unclaimed\{kind="(\w+)"\} (\d+)$`).FindAllStringSubmatch(text, -1)
		wrong := len(gauges) != 5
		for _, g := range gauges {
			want := h.unclaimed[g[1]]
			wrong = wrong || want != manyForeign && g[2] != strconv.Itoa(want)
		}
		return !wrong
	})
}

// crashed waits for a daemon that is to kill itself at a failpoint, and tells whether it did. A daemon that was not killed
// within the time is stopped.
func (h *host) crashed(within time.Duration) bool {
	h.t.Helper()
	stop := time.AfterFunc(within, func() { _ = h.daemon.Process.Signal(syscall.SIGTERM) })
	defer stop.Stop()
	err := h.daemon.Wait()
	h.daemon = nil
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		st, ok := exit.Sys().(syscall.WaitStatus)
		return ok && st.Signaled() && st.Signal() == syscall.SIGKILL
	}
	return false
}

// kill is a power cut for the process.
func (h *host) kill() {
	h.t.Helper()
	h.check(h.daemon.Process.Kill())
	_ = h.daemon.Wait() // the error says that it was killed
	h.daemon = nil
}

// end detaches the pool, whatever state the test left, and shows the log of a failed test.
func (h *host) end() {
	if h.daemon != nil {
		h.kill()
	}
	if h.store != nil {
		h.check(h.store.Close())
	}
	if out, code := h.try("pool", "detach"); code != 0 {
		h.t.Errorf("pool detach: %d %s", code, out)
	}
	if h.t.Failed() {
		text, _ := os.ReadFile(h.log.Name())
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, `"level":"warn"`) || strings.Contains(line, `"level":"error"`) {
				h.t.Logf("daemon log: %s", line)
			}
		}
		h.t.Logf("daemon log, its end:\n%s", text[max(0, len(text)-16000):])
	}
	h.check(h.log.Close())
}

func (h *host) put(key string, body []byte) {
	h.t.Helper()
	h.check(h.cloud.Put(h.t.Context(), key, body))
}

// eventually polls until cond holds; it fails the test after a minute.
func (h *host) eventually(what string, cond func() bool) {
	h.t.Helper()
	h.eventuallyWithin(0, what, cond)
}

// eventuallyWithin gives a minute, and 50 ms more for each of n.
func (h *host) eventuallyWithin(n int, what string, cond func() bool) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute+time.Duration(n)*50*time.Millisecond)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			h.t.Fatalf("not in time: %s", what)
		}
	}
}

// ends waits until the key's newest image is terminal, and returns it.
func (h *host) ends(key string) store.Image {
	h.t.Helper()
	var img store.Image
	h.eventually(key+" ends", func() bool {
		images, err := h.store.ByKey(h.t.Context(), key)
		h.check(err)
		if len(images) > 0 {
			img = images[len(images)-1]
		}
		return len(images) > 0 && img.State != store.Pending
	})
	return img
}

// active waits until the key's image is active.
func (h *host) active(key string) store.Image {
	h.t.Helper()
	img := h.ends(key)
	if img.State != store.Active {
		h.t.Fatalf("%s ended %s: %s", key, img.State, img.Reason)
	}
	return img
}

// drained waits until the queue holds nothing, visible or in flight.
func (h *host) drained() {
	h.t.Helper()
	h.eventually("the queue is empty", h.isDrained)
}

func (h *host) isDrained() bool {
	h.t.Helper()
	drained, err := h.cloud.IsDrained(h.t.Context())
	h.check(err)
	return drained
}

// whole checks what must hold while no daemon changes anything.
func (h *host) whole() {
	h.t.Helper()
	found, err := invariants.Look(h.t.Context(), h.store, filepath.Join(h.dir, "state"))
	h.check(err)
	for _, b := range found.Broken() {
		h.t.Error(b)
	}
}

func mustJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// hello returns what a snapshot's /etc/hello holds.
func (h *host) hello(snapshot string) string {
	h.t.Helper()
	text, err := invariants.ReadFile(snapshot, "rootfs/etc/hello")
	h.check(err)
	return string(text)
}

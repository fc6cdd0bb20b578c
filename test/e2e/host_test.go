// Package e2e runs the real daemon against a real thin pool and an emulated S3 and SQS.
package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"

	"imagemanager.internal/test/cloud"
	"imagemanager.internal/test/emulator"
	machine "imagemanager.internal/test/host"
	"imagemanager.internal/test/invariants"
)

// host is one machine of these tests.
type host struct {
	*machine.Host

	unclaimed map[string]int // by kind: what the test itself made, outside of the journal
}

// manyForeign stands in host.unclaimed for a number that changes during the test.
const manyForeign = -1

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
	machine.NeedPool(t)
	h := &host{Host: &machine.Host{T: t, State: filepath.Join(t.TempDir(), "state")}}
	c := cloud.Connect(os.Getenv("E2E_ENDPOINT_URL"))
	if c.URL == "" {
		var err error
		c, err = cloud.Emulate(t.TempDir(), nil)
		h.Check(err)
	}
	t.Cleanup(func() { h.Check(c.Close()) })
	var err error
	h.Cloud, err = c.Bucket(t.Context(), "e2e-"+uuid.NewString())
	h.Check(err)
	h.Check(h.Cloud.Notify(t.Context()))
	return h
}

// emulator returns the emulator, for tests that make it fail. With another S3 and SQS the
// test is skipped, as those cannot be made to fail.
func (h *host) emulator() *emulator.Server {
	h.T.Helper()
	if h.Cloud.Emulator == nil {
		h.T.Skip("E2E_ENDPOINT_URL is set: only the emulator fails on demand")
	}
	return h.Cloud.Emulator
}

// addHost makes one more machine with a pool of its own, on the same queue.
func (h *host) addHost(name string, env ...string) *host {
	h.T.Helper()
	more := &host{Host: &machine.Host{T: h.T, State: filepath.Join(h.T.TempDir(), "state"), Cloud: h.Cloud}}
	more.install(name, "2GiB", env)
	return more
}

// install makes the machine's state directory and pool; args are for `pool create`.
func (h *host) install(pool, size string, env []string, args ...string) {
	h.T.Helper()
	h.unclaimed = map[string]int{}
	h.Env = append([]string{"DEVICE_SIZE=256MiB", "RECONCILE_INTERVAL=1s"}, env...)
	h.OpenLog(filepath.Join(filepath.Dir(h.State), "daemon.log"))
	h.T.Cleanup(h.Close)
	h.Consumer(append([]string{"pool", "create", "--name", pool, "--data-size", size, "--thins", "100"}, args...)...)
	h.OpenStore()
}

// dir is the parent of the state directory. Tests put files of their own there.
func (h *host) dir() string { return filepath.Dir(h.State) }

// poolName returns a short name that is unique: tests may share a kernel.
func poolName(t *testing.T) string {
	name := strings.ToLower(strings.TrimPrefix(t.Name(), "Test"))
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, name)[:min(len(name), 24)]
}

// Stop ends the daemon with SIGTERM. It must know of nothing unclaimed and exit with 0.
func (h *host) Stop() {
	h.T.Helper()
	h.waitClaimed()
	h.Host.Stop()
}

// waitClaimed waits until the gauges of the running daemon count only what the test
// itself made as unclaimed. They are as of its last reconcile.
func (h *host) waitClaimed() {
	h.T.Helper()
	h.WaitFor("imagemanager_unclaimed has the right values", func() bool {
		_, text := h.Get("/metrics")
		gauges := regexp.MustCompile(`(?m)^imagemanager_unclaimed\{kind="(\w+)"\} (\d+)$`).
			FindAllStringSubmatch(text, -1)
		wrong := len(gauges) != 5
		for _, g := range gauges {
			want := h.unclaimed[g[1]]
			wrong = wrong || want != manyForeign && g[2] != strconv.Itoa(want)
		}
		return !wrong
	})
}

func (h *host) put(key string, body []byte) {
	h.T.Helper()
	h.Check(h.Cloud.Put(h.T.Context(), key, body))
}

func mustJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// readHello returns the content of a snapshot's /etc/hello.
func (h *host) readHello(snapshot string) string {
	h.T.Helper()
	text, err := invariants.ReadFile(snapshot, "rootfs/etc/hello")
	h.Check(err)
	return string(text)
}

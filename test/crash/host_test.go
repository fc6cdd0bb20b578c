package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	machine "imagemanager.internal/test/host"
)

// host is a machine whose state directory and pool lie on a disk that outlives the
// kernel.
type host struct {
	*machine.Host
	w   *testbed
	dir string
}

// imagesPerHost is how many images a host takes before a new one replaces it: a start
// looks at every image.
const imagesPerHost = 8

// currentHost returns the host of this boot, which has a pool. A host with imagesPerHost
// images is replaced by a new one.
func currentHost(t *testing.T) *host {
	t.Helper()
	w := theTestbed(t)
	if h := w.host; h != nil && saved.Step == 0 && len(saved.Keys) >= imagesPerHost {
		h.T = t
		h.retire()
	}
	h := presentHost(t)
	if h.Store == nil {
		h.Consumer(h.createPool()...)
		h.OpenStore()
	}
	return h
}

func (h *host) createPool() []string {
	return []string{"pool", "create", "--name", h.w.Name, "--data-size", "1GiB", "--thins", "200"}
}

// presentHost returns the host of this boot, or opens that of the boot before, or makes a
// new one without a pool.
func presentHost(t *testing.T) *host {
	t.Helper()
	w := theTestbed(t)
	if w.host != nil {
		w.host.T = t
		return w.host
	}
	dir := func() string { return filepath.Join(os.TempDir(), fmt.Sprintf("crash-%d", saved.Hosts)) }
	if _, err := os.Stat(dir()); err != nil {
		saved.Hosts++
		saved.Keys, saved.Deleted, saved.Lost = nil, map[string]bool{}, 0
		saved.save()
		check(t, os.Mkdir(dir(), 0o700))
		check(t, syncDir(os.TempDir())) // a kernel may be killed before anything else is synced
	}
	w.open(t)
	h := &host{w: w, dir: dir(), Host: &machine.Host{T: t, State: filepath.Join(dir(), "state"), Cloud: w.Bucket}}
	h.Failed = func(text string) { saved.failed(h.T, text) }
	h.Env = []string{
		"LISTEN_ADDR=", "LOG_LEVEL=info", "SQS_DRAIN=50ms", "SHUTDOWN_GRACE=5s",
		"SQS_VISIBILITY=600s", // a recovery does not wait for the queue
		"MAX_CUT_OFFS=1000",   // it is not the images that kill here
	}
	h.OpenLog(filepath.Join(h.dir, "daemon.log"))
	w.host = h
	if _, err := os.Stat(h.Database()); err == nil {
		h.OpenStore()
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

// retire verifies every image of the host, detaches the pool and removes everything.
func (h *host) retire() {
	h.T.Helper()
	h.Consumer("verify", "--all")
	h.remove()
}

func (h *host) remove() {
	h.T.Helper()
	h.Consumer("pool", "detach")
	h.Release()
	h.Check(os.RemoveAll(h.dir))
	h.w.host = nil
}

// abandon shows the log of a host in which a case failed, and moves the host aside as it
// is.
func (w *testbed) abandon(t *testing.T) {
	h := w.host
	h.T = t
	h.Abandon()
	if out, code := h.Try("pool", "detach"); code != 0 {
		t.Logf("pool detach: %s", out)
	}
	_ = os.Rename(h.dir, h.dir+"-failed")
	w.host = nil
}

// startAfterKill starts the daemon after a kill and measures how long it takes to run.
func (h *host) startAfterKill(env ...string) {
	h.T.Helper()
	began := time.Now()
	h.Start(env...)
	h.WaitRunning()
	saved.Recovery = append(saved.Recovery, time.Since(began))
}

// waitKilled waits for a daemon that is to die at a failpoint, by SIGKILL or with the
// whole kernel, and reports whether it did. It gives up three seconds after over first
// reports true, or after a minute.
func (h *host) waitKilled(over func() bool) bool {
	h.T.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var since time.Time
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		select {
		case <-h.Done():
			return h.IsKilled()
		case <-tick.C:
		}
		if !over() {
			continue
		}
		if since.IsZero() {
			since = time.Now()
		}
		if time.Since(since) > 3*time.Second { // the failpoint follows closely, if at all
			break
		}
	}
	h.Kill()
	return false
}

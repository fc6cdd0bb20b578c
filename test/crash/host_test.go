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
	w   *world
	dir string
}

// imagesPerHost is when a host gives way to a new one: a start looks at every image.
const imagesPerHost = 8

// theHost returns the present host; a new one, with a pool, if there is none or it has
// become full.
func theHost(t *testing.T) *host {
	t.Helper()
	w := theWorld(t)
	if h := w.host; h != nil && book.Step == 0 && len(book.Keys) >= imagesPerHost {
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

// presentHost returns the host of this boot, else that of the boot before, else a new one
// that has no pool.
func presentHost(t *testing.T) *host {
	t.Helper()
	w := theWorld(t)
	if w.host != nil {
		w.host.T = t
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
	w.open(t)
	h := &host{w: w, dir: dir(), Host: &machine.Host{T: t, State: filepath.Join(dir(), "state"), Cloud: w.Bucket}}
	h.Failed = func(text string) { book.failed(h.T, text) }
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

// retire proves every image of the host by its seal, detaches the pool and removes all.
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

// abandon leaves a host in which a case failed as it is, after it has shown its log, and
// out of the way.
func (w *world) abandon(t *testing.T) {
	h := w.host
	h.T = t
	h.Abandon()
	if out, code := h.Try("pool", "detach"); code != 0 {
		t.Logf("pool detach: %s", out)
	}
	_ = os.Rename(h.dir, h.dir+"-failed")
	w.host = nil
}

// recovers starts the daemon after a kill and measures how long it takes to run.
func (h *host) recovers(env ...string) {
	h.T.Helper()
	began := time.Now()
	h.Start(env...)
	h.WaitRunning()
	book.Recovery = append(book.Recovery, time.Since(began))
}

// waitDead waits for a daemon that is to die at a failpoint, by SIGKILL or with all of
// the kernel, and reports whether it did: no longer when over says that there is nothing
// to come.
func (h *host) waitDead(over func() bool) bool {
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
		if time.Since(since) > 3*time.Second { // what it was to die at follows closely, if it follows
			break
		}
	}
	h.Kill()
	return false
}

package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/test/invariants"
)

// runKilledAt runs a command that is killed at each of the points, one run after the
// other.
func (h *host) runKilledAt(kills []kill, args ...string) {
	h.T.Helper()
	for i, k := range kills {
		if saved.Step > i { // it was that kill that brought the boot before to its end
			continue
		}
		saved.Step = i + 1
		saved.Kills[k.how]++
		saved.save()
		if out, code := h.TryWith(k.env(), args...); code != -1 {
			h.Errorf("kill %d, %+v: not reached: exit code %d, %s", i+1, k, code, out)
		}
	}
}

// runTraced runs a command that must succeed and returns what it passed.
func (h *host) runTraced(args ...string) []string {
	h.T.Helper()
	began := time.Now()
	if out, code := h.TryWith([]string{"CIM_CRASH_TRACE=" + h.traceFile()}, args...); code != 0 {
		h.Check(fmt.Errorf("consumer %s: exit code %d: %s", strings.Join(args, " "), code, out))
	}
	saved.Recovery = append(saved.Recovery, time.Since(began))
	return h.takeTrace()
}

// makeImage runs one image over the pool.
func (h *host) makeImage(key string) {
	h.T.Helper()
	h.w.put(h.T, key)
	h.Start()
	h.waitSettled(key, true)
	h.checkAtRest()
	h.checkReadable(key)
}

// checkCreateKilled runs one case: `pool create` is killed, and run again, which is all
// that an operator has to do.
func checkCreateKilled(t *testing.T, kills ...kill) []string {
	t.Helper()
	w := theTestbed(t)
	if h := w.host; h != nil && saved.Step == 0 {
		h.T = t
		h.retire()
	}
	h := presentHost(t)
	h.runKilledAt(kills, h.createPool()...)
	trace := h.runTraced(h.createPool()...)
	if h.Store == nil {
		h.OpenStore()
	}
	h.makeImage(fmt.Sprintf("images/%d-new.tar", files))
	return trace
}

// Killed at every point of its creation, the pool is made by the next try.
func TestPoolCreateKilled(t *testing.T) {
	needGuest(t)
	if saved.Traces[createTrace] == nil {
		saved.Traces[createTrace] = checkCreateKilled(t)
		presentHost(t).retire()
		saved.save()
	}
	t.Run("once", func(t *testing.T) { eachPoint(t, createTrace, checkCreateKilled) })
	t.Run("twice", func(t *testing.T) { // the second time at every point of the next try
		pairs := pairs(createTrace, "kill")
		saved.each(t, len(pairs), setting("CIM_CRASH_EVERY", selection),
			func(t *testing.T, i int) { checkCreateKilled(t, pairs[i]...) })
	})
}

// eachPoint kills what the trace is of at each of its points, once the process and once
// the kernel.
func eachPoint(t *testing.T, trace string, killed func(*testing.T, ...kill) []string) {
	t.Helper()
	n := len(saved.Traces[trace])
	saved.each(t, 2*n, setting("CIM_CRASH_EVERY", selection), func(t *testing.T, i int) {
		how := []string{"kill", "kernel"}[i/n]
		saved.Traces[recoveryOf(trace, how, i%n)] = killed(t, kill{how: how, n: i%n + 1})
	})
}

// checkGrowKilled runs one case: `pool grow` is killed; the daemon starts nevertheless,
// and grow run again does what is left to do.
func checkGrowKilled(t *testing.T, kills ...kill) []string {
	t.Helper()
	h := currentHost(t)
	if len(saved.Keys) == 0 {
		h.makeImage(fmt.Sprintf("images/%d-old.tar", files))
	}
	size := int64(1<<30) + int64(1+saved.Cases)<<26
	args := []string{"pool", "grow", "--data-size", fmt.Sprint(size)}
	h.runKilledAt(kills, args...)
	if len(kills) > 0 {
		h.startAfterKill()
		h.checkAtRest()
	}
	trace := h.runTraced(args...)
	pool, err := invariants.OpenPool(t.Context(), h.Store)
	h.Check(err)
	defer pool.Close()
	if s, err := pool.Status(); err != nil || s.TotalData != size {
		h.Errorf("the pool has %d bytes, not %d: %v", s.TotalData, size, err)
	}
	h.checkInvariants()
	return trace
}

// checkReplaceKilled runs one case: the pool's files are lost, and `pool create
// --replace` is killed, and run again. The daemon makes the image again.
func checkReplaceKilled(t *testing.T, kills ...kill) []string {
	t.Helper()
	h := currentHost(t)
	if len(saved.Keys) == 0 {
		h.makeImage(fmt.Sprintf("images/%d-old.tar", files))
	}
	if saved.Step == 0 {
		h.Consumer("pool", "detach")
		h.Check(os.RemoveAll(filepath.Join(h.dir, "state", "pool")))
		h.Check(syncDir(filepath.Join(h.dir, "state")))
		saved.Lost++
	}
	args := append(h.createPool(), "--replace")
	h.runKilledAt(kills, args...)
	if row, err := h.Store.Pool(t.Context()); err != nil || len(kills) > 0 && row.State == "ready" &&
		devmapper.CheckReplaceable(invariants.ConfigOf(row)) != nil {
		h.Check(err) // killed when all was done
		args = h.createPool()
	}
	trace := h.runTraced(args...)
	h.startAfterKill()
	h.waitSettled(saved.Keys[0], true)
	h.checkAtRest()
	h.checkReadable(saved.Keys[0])
	return trace
}

// Killed at every point of its replacement, a lost pool is replaced by the next try, and
// its image is made again.
func TestPoolReplaceKilled(t *testing.T) {
	needGuest(t)
	if saved.Traces[replaceTrace] == nil {
		saved.Traces[replaceTrace] = checkReplaceKilled(t)
		presentHost(t).retire()
		saved.save()
	}
	eachPoint(t, replaceTrace, checkReplaceKilled)
}

// Killed at every point of its growth, the pool serves on, and grows by the next try.
func TestPoolGrowKilled(t *testing.T) {
	needGuest(t)
	if saved.Traces[growTrace] == nil {
		saved.Traces[growTrace] = checkGrowKilled(t)
		presentHost(t).retire()
		saved.save()
	}
	t.Run("once", func(t *testing.T) { eachPoint(t, growTrace, checkGrowKilled) })
	t.Run("twice", func(t *testing.T) { // the second time at every point of the next try: the same ones
		n := len(saved.Traces[growTrace])
		saved.each(t, n*n, setting("CIM_CRASH_EVERY", selection), func(t *testing.T, i int) {
			checkGrowKilled(t, kill{how: "kill", n: i/n + 1}, kill{how: "kill", n: i%n + 1})
		})
	})
}

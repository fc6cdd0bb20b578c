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

// dieAt runs a command that is killed at each of the points, one run after the other.
func (h *host) dieAt(kills []kill, args ...string) {
	h.T.Helper()
	for i, k := range kills {
		if book.Step > i { // it was that kill that brought the boot before to its end
			continue
		}
		book.Step = i + 1
		book.Kills[k.how]++
		book.save()
		if out, code := h.TryWith(k.env(), args...); code != -1 {
			h.Errorf("kill %d, %+v: not reached: exit code %d, %s", i+1, k, code, out)
		}
	}
}

// traced runs a command that must succeed and returns what it passed.
func (h *host) traced(args ...string) []string {
	h.T.Helper()
	began := time.Now()
	if out, code := h.TryWith([]string{"CIM_CRASH_TRACE=" + h.traceFile()}, args...); code != 0 {
		h.Check(fmt.Errorf("consumer %s: exit code %d: %s", strings.Join(args, " "), code, out))
	}
	book.Recovery = append(book.Recovery, time.Since(began))
	return h.trace()
}

// works runs one image over the pool.
func (h *host) works(key string) {
	h.T.Helper()
	h.w.put(h.T, key)
	h.Start()
	h.waitSettled(key, true)
	h.rests()
	h.reads(key)
}

// created runs one case: `pool create` is killed, and run again, which is all that an
// operator has to do.
func created(t *testing.T, kills ...kill) []string {
	t.Helper()
	w := theWorld(t)
	if h := w.host; h != nil && book.Step == 0 {
		h.T = t
		h.retire()
	}
	h := presentHost(t)
	h.dieAt(kills, h.createPool()...)
	trace := h.traced(h.createPool()...)
	if h.Store == nil {
		h.OpenStore()
	}
	h.works(fmt.Sprintf("images/%d-new.tar", files))
	return trace
}

// Killed at every point of its creation, the pool is made by the next try.
func TestPoolCreateKilled(t *testing.T) {
	needGuest(t)
	if book.Traces[createTrace] == nil {
		book.Traces[createTrace] = created(t)
		presentHost(t).retire()
		book.save()
	}
	t.Run("once", func(t *testing.T) { overPoints(t, createTrace, created) })
	t.Run("twice", func(t *testing.T) { // the second time at every point of the next try
		pairs := pairs(createTrace, "kill")
		book.each(t, len(pairs), setting("CIM_CRASH_EVERY", selection),
			func(t *testing.T, i int) { created(t, pairs[i]...) })
	})
}

// overPoints kills what the trace is of at each of its points, once the process and once
// the kernel.
func overPoints(t *testing.T, trace string, killed func(*testing.T, ...kill) []string) {
	t.Helper()
	n := len(book.Traces[trace])
	book.each(t, 2*n, setting("CIM_CRASH_EVERY", selection), func(t *testing.T, i int) {
		how := []string{"kill", "kernel"}[i/n]
		book.Traces[recoveryOf(trace, how, i%n)] = killed(t, kill{how: how, n: i%n + 1})
	})
}

// grown runs one case: `pool grow` is killed; the daemon starts nevertheless, and grow
// run again does what is left to do.
func grown(t *testing.T, kills ...kill) []string {
	t.Helper()
	h := theHost(t)
	if len(book.Keys) == 0 {
		h.works(fmt.Sprintf("images/%d-old.tar", files))
	}
	size := int64(1<<30) + int64(1+book.Cases)<<26
	args := []string{"pool", "grow", "--data-size", fmt.Sprint(size)}
	h.dieAt(kills, args...)
	if len(kills) > 0 {
		h.recovers()
		h.rests()
	}
	trace := h.traced(args...)
	pool, err := invariants.OpenPool(t.Context(), h.Store)
	h.Check(err)
	defer pool.Close()
	if s, err := pool.Status(); err != nil || s.TotalData != size {
		h.Errorf("the pool has %d bytes, not %d: %v", s.TotalData, size, err)
	}
	h.whole()
	return trace
}

// replaced runs one case: the pool's files are lost, and `pool create --replace` is
// killed, and run again. The daemon makes the image again.
func replaced(t *testing.T, kills ...kill) []string {
	t.Helper()
	h := theHost(t)
	if len(book.Keys) == 0 {
		h.works(fmt.Sprintf("images/%d-old.tar", files))
	}
	if book.Step == 0 {
		h.Consumer("pool", "detach")
		h.Check(os.RemoveAll(filepath.Join(h.dir, "state", "pool")))
		h.Check(syncDir(filepath.Join(h.dir, "state")))
		book.Lost++
	}
	args := append(h.createPool(), "--replace")
	h.dieAt(kills, args...)
	if row, err := h.Store.Pool(t.Context()); err != nil || len(kills) > 0 && row.State == "ready" &&
		devmapper.Lost(invariants.ConfigOf(row)) != nil {
		h.Check(err) // killed when all was done
		args = h.createPool()
	}
	trace := h.traced(args...)
	h.recovers()
	h.waitSettled(book.Keys[0], true)
	h.rests()
	h.reads(book.Keys[0])
	return trace
}

// Killed at every point of its replacement, a lost pool is replaced by the next try, and
// its image is made again.
func TestPoolReplaceKilled(t *testing.T) {
	needGuest(t)
	if book.Traces[replaceTrace] == nil {
		book.Traces[replaceTrace] = replaced(t)
		presentHost(t).retire()
		book.save()
	}
	overPoints(t, replaceTrace, replaced)
}

// Killed at every point of its growth, the pool serves on, and grows by the next try.
func TestPoolGrowKilled(t *testing.T) {
	needGuest(t)
	if book.Traces[growTrace] == nil {
		book.Traces[growTrace] = grown(t)
		presentHost(t).retire()
		book.save()
	}
	t.Run("once", func(t *testing.T) { overPoints(t, growTrace, grown) })
	t.Run("twice", func(t *testing.T) { // the second time at every point of the next try: the same ones
		n := len(book.Traces[growTrace])
		book.each(t, n*n, setting("CIM_CRASH_EVERY", selection), func(t *testing.T, i int) {
			grown(t, kill{how: "kill", n: i/n + 1}, kill{how: "kill", n: i%n + 1})
		})
	})
}

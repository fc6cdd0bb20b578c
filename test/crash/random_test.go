package crash

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

const (
	killsPerRound  = 10
	roundsPerHost  = 5
	kernelsPerKill = 25 // one kill in this many is of the kernel
)

// Killed at random moments with several images in flight, ten times in a row, the kernel
// once in a while: the start after it finishes all of them. The moments depend on
// CIM_CRASH_SEED and on the machine.
func TestRandomKills(t *testing.T) {
	needGuest(t)
	saved.each(t, setting("CIM_CRASH_RANDOM", killsPerRound), 1, killAtRandom)
}

func killAtRandom(t *testing.T, i int) {
	r := rand.New(rand.NewPCG(uint64(saved.Seed), uint64(i))) //nolint:gosec // the same again for the same seed
	kernel, part := r.IntN(kernelsPerKill) == 0, r.Float64()
	h := hostOfRound(t, i)
	if saved.Step == 0 {
		if i%killsPerRound == 0 {
			h.putRound(i / killsPerRound)
		}
		h.Start()
		h.runFor(time.Duration(part * 3 * float64(usualRecovery())))
		how := map[bool]string{true: "kernel", false: "kill"}[kernel]
		saved.Kills[how]++
		saved.Step = 1
		saved.save()
		if kernel {
			h.killKernel()
		}
		h.Kill()
	}
	h.checkAcknowledged()
	if i%killsPerRound == killsPerRound-1 {
		h.endRound()
	}
}

// hostOfRound is a new host every few rounds.
func hostOfRound(t *testing.T, i int) *host {
	t.Helper()
	w := theTestbed(t)
	if w.host != nil && saved.Step == 0 && i%(killsPerRound*roundsPerHost) == 0 {
		w.host.T = t
		w.host.retire()
	}
	h := presentHost(t)
	if h.Store == nil {
		h.Consumer(h.createPool()...)
		h.OpenStore()
	}
	return h
}

// putRound uploads images that take their time in different stages: the largest is
// downloaded in parts, one is refused.
func (h *host) putRound(round int) {
	h.T.Helper()
	for n, name := range []string{
		"images/5-a", "images/20-b", "images/20-c", "images/200-d", "images/700-e",
		"images/refused-f",
	} {
		if n == 4 && round%2 == 1 {
			continue
		}
		h.w.put(h.T, fmt.Sprintf("%s-%d.tar", name, round))
	}
}

// endRound lets the daemon finish.
func (h *host) endRound() {
	h.T.Helper()
	for _, key := range saved.Keys {
		if _, ok := h.image(key); !ok {
			h.w.upload(h.T, key) // redelivered
		}
	}
	h.startAfterKill()
	for _, key := range saved.Keys {
		h.waitSettled(key, true)
	}
	h.checkAtRest()
	for _, key := range saved.Keys {
		if !isRefused(key) {
			h.checkReadable(key)
		}
	}
}

// runFor lets the daemon run for this long.
func (h *host) runFor(d time.Duration) {
	h.T.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-h.Done():
		h.Check(errors.New("the daemon ended by itself"))
	}
}

// usualRecovery is the median of the recoveries so far, on this machine as loaded as it
// is.
func usualRecovery() time.Duration {
	if len(saved.Recovery) == 0 {
		return time.Second
	}
	r := slices.Clone(saved.Recovery)
	slices.Sort(r)
	return r[len(r)/2]
}

// killKernel brings the kernel down under everything.
func (h *host) killKernel() {
	h.T.Helper()
	h.Check(os.WriteFile(filepath.Join(os.Getenv("CIM_BOOT_DIR"), "down"), []byte("at random"), 0o600))
	h.Check(os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0))
}

package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"imagemanager.internal/internal/store"
)

// The names of traces.
const (
	imageTrace   = "image"
	createTrace  = "pool create"
	growTrace    = "pool grow"
	replaceTrace = "pool create --replace"
)

// files in the image that is killed again and again.
const files = 20

// kill is one kill of a case: the n-th passage of a start, of the process or of the
// kernel under it.
type kill struct {
	how string
	n   int
}

func (k kill) env() []string {
	return []string{"CIM_CRASH_HOW=" + k.how, fmt.Sprintf("CIM_CRASH_AT=#%d", k.n)}
}

// imagePoints returns what the daemon passes from its start until an image is active and
// its message deleted.
func imagePoints(t *testing.T) []string {
	t.Helper()
	if trace := saved.Traces[imageTrace]; trace != nil {
		return trace
	}
	h := currentHost(t)
	key := fmt.Sprintf("images/%d-model.tar", files)
	h.w.put(t, key)
	h.Start("CIM_CRASH_TRACE=" + h.traceFile())
	h.waitSettled(key, false)
	h.Stop()
	h.checkInvariants()
	trace := h.takeTrace()
	h.retire()
	if len(trace) < 60 || !slices.Contains(trace, runningPoint) {
		h.Check(fmt.Errorf("only %d points: %v: build CONSUMER_BIN with -tags failpoint", len(trace), trace))
	}
	saved.Traces[imageTrace] = trace
	saved.save()
	if testing.Verbose() {
		for i, point := range trace {
			fmt.Printf("%4d  %s\n", i+1, point)
		}
	}
	return trace
}

// From runningPoint on messages are taken. Recovery ends at activatedPoint.
const (
	runningPoint   = "running"
	activatedPoint = "activated"
)

func (h *host) traceFile() string { return filepath.Join(h.dir, "trace") }

// takeTrace returns what the start with traceFile has passed, and forgets it.
func (h *host) takeTrace() []string {
	h.T.Helper()
	text, err := os.ReadFile(h.traceFile())
	h.Check(err)
	h.Check(os.Remove(h.traceFile()))
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

// waitSettled waits until the key's image has ended and its message is deleted. A message
// that a kill has hidden is delivered again, as SQS does after the visibility time-out,
// but not before the image is active: recovery does not need it.
func (h *host) waitSettled(key string, redeliver bool) {
	h.T.Helper()
	want := store.StateActive
	if isRefused(key) {
		want = store.StateRejected
	}
	since := time.Now()
	h.WaitFor(key+" ends "+string(want), func() bool {
		img, ok := h.image(key)
		// the last poll of the daemon that was killed took its message along
		if !ok && redeliver && time.Since(since) > 5*time.Second {
			since = time.Now()
			h.w.upload(h.T, key)
		}
		return ok && img.State == want
	})
	if redeliver && !h.w.isDeleted(key) {
		h.w.upload(h.T, key)
	}
	h.WaitFor("the message about "+key+" is deleted", func() bool { return h.w.isDeleted(key) })
}

// checkImageKilled runs one case: the daemon takes an image and is killed, is killed
// again while it recovers, and is left to finish. What is there then is whole, and one
// start more changes nothing. It returns what the last recovery passed.
func checkImageKilled(t *testing.T, key string, kills ...kill) []string {
	t.Helper()
	h := currentHost(t)
	if saved.Step == 0 {
		h.w.put(t, key)
	}
	for i, k := range kills {
		if saved.Step > i { // it was that kill that brought the boot before to its end
			continue
		}
		saved.Step = i + 1
		saved.Kills[k.how]++
		saved.save() // a kernel's death ends this program here
		h.Start(k.env()...)
		if h.waitKilled(func() bool { return h.IsRunning() && (i > 0 || h.w.isDeleted(key)) }) {
			h.checkAcknowledged()
			continue
		}
		saved.Kills[k.how]--
		if saved.Missed++; i == 0 || saved.Missed > 5+len(saved.Recovery)/20 {
			h.Errorf("kill %d, %+v: not reached", i+1, k)
		}
	}
	h.checkAcknowledged()
	if _, ok := h.image(key); !ok {
		h.w.upload(t, key) // redelivered
	}
	h.startAfterKill("CIM_CRASH_TRACE=" + h.traceFile())
	h.waitSettled(key, true)
	h.checkAtRest()
	h.checkReadable(key)
	trace := h.takeTrace()
	return trace[:slices.Index(trace, activatedPoint)+1]
}

// checkAtRest stops the daemon: all is whole, and one start more changes nothing.
func (h *host) checkAtRest() {
	h.T.Helper()
	h.Stop()
	before := h.checkInvariants()
	h.Start()
	h.Stop()
	if after := h.checkInvariants(); after != before {
		h.Errorf("a further start changed something:\n%s\n%s", before, after)
	}
}

// Killed at every point on the way of an image, the daemon finishes it at the next start;
// also if it is killed again at every point of that.
func TestKilled(t *testing.T) {
	needGuest(t)
	points := imagePoints(t)
	t.Run("once", func(t *testing.T) { killOnce(t, points, "kill") })
	t.Run("twice", killTwice)
}

// The same with the whole kernel: what was not synced is gone.
func TestKernelKilled(t *testing.T) {
	needGuest(t)
	points := imagePoints(t)
	t.Run("once", func(t *testing.T) { killOnce(t, points, "kernel") })
	t.Run("twice", func(t *testing.T) { killKernelTwice(t, points) })
}

func killOnce(t *testing.T, points []string, how string) {
	t.Helper()
	saved.each(t, len(points), setting("CIM_CRASH_EVERY", selection), func(t *testing.T, i int) {
		key := fmt.Sprintf("images/%d-%s-%d.tar", files, how, i)
		saved.Traces[recoveryOf(imageTrace, how, i)] = checkImageKilled(t, key, kill{how: how, n: i + 1})
	})
}

// selection: `make test-uml` runs one of this many cases.
const selection = 40

// recoveryOf names the trace of the recovery from a kill at a point of what the trace is
// of.
func recoveryOf(trace, how string, point int) string {
	return fmt.Sprintf("%s, %s at %d", trace, how, point)
}

// killTwice kills at every point of the recoveries that once has seen. Where recoveries
// pass the same points, the first kills take turns.
func killTwice(t *testing.T) {
	pairs := pairs(imageTrace, "kill")
	saved.each(t, len(pairs), setting("CIM_CRASH_EVERY", selection), func(t *testing.T, i int) {
		checkImageKilled(t, fmt.Sprintf("images/%d-twice-%d.tar", files, i), pairs[i]...)
	})
}

// pairs are the second kills at every point of every distinct recovery, and at least one
// for each first kill.
func pairs(trace, how string) (list [][]kill) {
	same := map[string][]int{}
	var order []string
	for i := range saved.Traces[trace] {
		name := strings.Join(saved.Traces[recoveryOf(trace, how, i)], "\n")
		if name == "" { // not among the cases that were selected
			continue
		}
		if same[name] == nil {
			order = append(order, name)
		}
		same[name] = append(same[name], i)
	}
	for _, name := range order {
		first, n := same[name], strings.Count(name, "\n")+1
		for i := range max(n, len(first)) {
			list = append(list, []kill{{how: how, n: first[i%len(first)] + 1}, {how: how, n: i%n + 1}})
		}
	}
	return list
}

// killKernelTwice kills once more for each first point, the second kills taking turns
// through the recovery.
func killKernelTwice(t *testing.T, points []string) {
	t.Helper()
	saved.each(t, len(points), setting("CIM_CRASH_EVERY", selection), func(t *testing.T, i int) {
		recovery := saved.Traces[recoveryOf(imageTrace, "kernel", i)]
		if len(recovery) == 0 {
			t.Fatal("the recovery from the first kill is not known")
		}
		key := fmt.Sprintf("images/%d-kernels-%d.tar", files, i)
		checkImageKilled(t, key, kill{how: "kernel", n: i + 1}, kill{how: "kernel", n: i%len(recovery) + 1})
	})
}

package crash

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// saved is the progress of this program; nil where there is no guest.
var saved *progress

// progress is what lasts from one boot to the next.
type progress struct {
	dir     string
	testbed *testbed // of this boot

	Next     map[string]int      // by test: the case it is at
	Step     int                 // of the case in hand: how many of its kills are done
	Hosts    int                 // how many state directories were made
	Keys     []string            // of the present host: the objects in its bucket
	Deleted  map[string]bool     // of the present host: the objects whose message the daemon has deleted
	Lost     int                 // of the present host: how often its pool was lost, and its images made again
	Missed   int                 // second kills at points that were not reached
	Traces   map[string][]string // by name: what a run without a kill, or a recovery, passes
	Cases    int
	Kills    map[string]int // by how
	Recovery []time.Duration
	Seed     int64
	Failures []string
	Shown    time.Time // when the progress was shown last
}

const (
	progressName  = "progress.json"
	interruptName = "interrupted"
	mostFailures  = 10
)

func openProgress(dir string) (*progress, error) {
	l := &progress{
		dir: dir, Next: map[string]int{}, Deleted: map[string]bool{}, Traces: map[string][]string{},
		Kills: map[string]int{},
	}
	text, err := os.ReadFile(filepath.Join(dir, progressName))
	if errors.Is(err, fs.ErrNotExist) {
		l.Seed = int64(setting("CIM_CRASH_SEED", int(time.Now().UnixNano()%1_000_000)))
		return l, nil
	}
	if err != nil {
		return nil, err
	}
	return l, json.Unmarshal(text, l)
}

// save writes it to the host's disk: once it returns, no kernel of a guest can
// lose it.
func (l *progress) save() {
	text, err := json.Marshal(l)
	part := filepath.Join(l.dir, progressName+".part")
	if err == nil {
		err = os.WriteFile(part, text, 0o600)
	}
	if err == nil {
		err = os.Rename(part, filepath.Join(l.dir, progressName))
	}
	if err != nil {
		panic(err) //nolint:forbidigo // nothing that this program finds out from here on would be worth anything
	}
}

func (l *progress) interrupt() {
	_ = os.WriteFile(filepath.Join(l.dir, interruptName), nil, 0o600) // the user will ask again
}

func (l *progress) interrupted() bool {
	_, err := os.Stat(filepath.Join(l.dir, interruptName))
	return err == nil
}

// each runs the cases of a test that have not been run, each a subtest, and is where it
// was after a reboot. It takes every stride-th case.
func (l *progress) each(t *testing.T, n, stride int, do func(t *testing.T, i int)) {
	t.Helper()
	if n == 0 {
		t.Fatal("there are no cases: what they are made of was not run")
	}
	if only := setting("CIM_CRASH_CASE", -1); only >= 0 {
		n = min(n, only+1)
		l.Next[t.Name()] = max(only, l.Next[t.Name()])
	}
	if l.Next[t.Name()] >= n {
		return
	}
	defer func() {
		if w := l.testbed; w != nil && w.host != nil {
			w.host.T = t
			w.host.retire()
		}
	}()
	for i := l.Next[t.Name()]; i < n; i = l.Next[t.Name()] {
		if l.interrupted() || len(l.Failures) >= mostFailures {
			t.Errorf("ended at case %d of %d", i, n)
			return
		}
		if t.Run(fmt.Sprint(i), func(t *testing.T) { do(t, i) }); t.Failed() && l.testbed != nil &&
			l.testbed.host != nil {
			l.testbed.abandon(t)
		}
		l.Next[t.Name()] += stride
		l.Step = 0
		l.Cases++
		if time.Since(l.Shown) > 15*time.Second || l.Next[t.Name()] >= n {
			l.Shown = time.Now()
			fmt.Printf("%s  %s: %d of %d, kills %d + %d kernels, %d failures\n",
				l.Shown.Format(time.TimeOnly), t.Name(), min(l.Next[t.Name()], n), n,
				l.Kills["kill"], l.Kills["kernel"], len(l.Failures))
		}
		l.save()
	}
}

// failed notes a failure, for the boots to come.
func (l *progress) failed(t *testing.T, text string) {
	l.Failures = append(l.Failures, t.Name()+": "+text)
	l.save()
}

func (l *progress) print() {
	r := slices.Clone(l.Recovery)
	slices.Sort(r)
	at := func(percent int) time.Duration {
		if len(r) == 0 {
			return 0
		}
		return r[min(len(r)*percent/100, len(r)-1)].Round(time.Millisecond)
	}
	fmt.Printf(`
  points of an image              %d
  points of a recovery            at most %d
  points of pool create, grow     %d, %d
  points of its replacement       %d
  cases                           %d
  kills of the process            %d
  kills of the kernel             %d
  second kills that came too late %d
  recoveries                      %d
  time to recover                 p50 %s, p99 %s
  seed                            %d
  invariant failures              %d
`, len(l.Traces[imageTrace]), l.longest(),
		len(l.Traces[createTrace]), len(l.Traces[growTrace]), len(l.Traces[replaceTrace]),
		l.Cases, l.Kills["kill"], l.Kills["kernel"], l.Missed,
		len(r), at(50), at(99), l.Seed, len(l.Failures))
	for _, f := range l.Failures {
		fmt.Println("  FAILED", f)
	}
}

// longest is the length of the longest recovery.
func (l *progress) longest() int {
	most := 0
	for name, trace := range l.Traces {
		if !slices.Contains([]string{imageTrace, createTrace, growTrace, replaceTrace}, name) {
			most = max(most, len(trace))
		}
	}
	return most
}

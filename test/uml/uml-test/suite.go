package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"
)

// suite runs the tests and prints what became of them.
func suite(ctx context.Context, o options) error {
	queue, err := os.MkdirTemp("", "uml-test-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(queue)
	for _, dir := range []string{waitingDir, takenDir, doneDir, "bin"} {
		if err := os.Mkdir(filepath.Join(queue, dir), 0o755); err != nil {
			return err
		}
	}
	tests, err := listTests(ctx, o, filepath.Join(queue, "bin"))
	if err != nil {
		return err
	}
	if err := enqueue(queue, tests); err != nil {
		return err
	}
	began := time.Now()
	rep := &report{verbose: o.verbose, tests: tests}
	s := &scheduler{queue: queue, report: rep}
	s.run(ctx, o.guests, tests)
	if again := missing(tests, rep.results); len(again) > 0 && len(rep.failures) == 0 && ctx.Err() == nil {
		// Their guest's kernel stopped, and uml-run went on with the next test in another
		// one.
		fmt.Fprintf(os.Stderr, "uml-test: no result of %d tests; once more\n", len(again))
		if err := enqueue(queue, again); err != nil {
			return err
		}
		s.run(ctx, o.guests, again)
	}
	return rep.print(os.Stdout, time.Since(began))
}

// enqueue writes the tests that guests share, in order.
func enqueue(queue string, tests []test) error {
	for i, t := range tests {
		if t.alone {
			continue
		}
		text, err := json.Marshal(t)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("%04d-%s", i, t.id())
		if err := os.WriteFile(filepath.Join(queue, waitingDir, name), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// scheduler keeps guests busy.
type scheduler struct {
	queue  string
	report *report
}

// run runs a limited number of guests at once: first those of one test, which take
// longest, then those that share the queue.
func (s *scheduler) run(ctx context.Context, guests int, tests []test) {
	stop, watched := make(chan struct{}), make(chan struct{})
	go func() { defer close(watched); s.watch(stop) }()
	defer func() { close(stop); <-watched }()
	work := make(chan func())
	var all sync.WaitGroup
	for range guests {
		all.Go(func() {
			for f := range work {
				f()
			}
		})
	}
	shared := 0
	for _, t := range tests {
		if !t.alone {
			shared++
			continue
		}
		work <- func() { s.report.add(alone(ctx, t)) }
	}
	for range min(guests, shared) {
		work <- func() {
			for more := true; more && ctx.Err() == nil && s.isWaiting(); {
				more = s.guest(ctx)
			}
		}
	}
	close(work)
	all.Wait()
}

// isWaiting reports whether a test waits for a guest.
func (s *scheduler) isWaiting() bool {
	entries, err := os.ReadDir(filepath.Join(s.queue, waitingDir))
	return err == nil && len(entries) > 0
}

// leftBehind is uml-run's exit code for a program that left something behind.
const leftBehind = 70

// guest boots a guest that takes tests from the queue until there are none, or one
// failed. It reports whether another one is worth booting.
func (s *scheduler) guest(ctx context.Context) bool {
	self, err := os.Executable()
	if err != nil {
		s.report.fail("%v", err)
		return false
	}
	cmd := umlRun(ctx, self, "-agent", s.queue)
	cmd.Env = append(os.Environ(), "CIM_UML_WRITABLE="+s.queue)
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.report.fail("a guest: %v\n%s", err, out)
	}
	return err == nil || cmd.ProcessState.ExitCode() == leftBehind
}

// alone runs a test in a guest of its own, whose kernel it may bring down.
func alone(ctx context.Context, t test) result {
	began := time.Now()
	cmd := umlRun(ctx, t.Binary, "-test.v", "-test.timeout=4h", "-test.run=^"+t.Name+"$")
	cmd.Dir = t.Dir
	cmd.Env = append(os.Environ(), "CIM_UML_REBOOTS=1")
	out, err := cmd.CombinedOutput()
	r := result{test: t, Took: time.Since(began), Output: string(out)}
	if err != nil {
		r.Code = 1
		r.Output += fmt.Sprintf("%s: %v\n", t.Name, err)
	}
	r.Skipped = skipped.MatchString(r.Output)
	return r
}

// umlRun is the uml-run beside this program. An interrupt reaches the tests by it.
func umlRun(ctx context.Context, args ...string) *exec.Cmd {
	path := "uml-run"
	if self, err := os.Executable(); err == nil {
		path = filepath.Join(filepath.Dir(self), path)
	}
	cmd := exec.CommandContext(ctx, path, append([]string{"--"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // the terminal's interrupt comes from us, once
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = time.Minute
	return cmd
}

// watch collects the results of the guests that share the queue.
func (s *scheduler) watch(stop <-chan struct{}) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for more := true; more; {
		select {
		case <-tick.C:
		case <-stop:
			more = false
		}
		if err := s.collect(); err != nil {
			s.report.fail("%v", err)
		}
	}
}

func (s *scheduler) collect() error {
	done := filepath.Join(s.queue, doneDir)
	entries, err := os.ReadDir(done)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(done, e.Name())
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var r result
		if err := errors.Join(json.Unmarshal(text, &r), os.Remove(path)); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		s.report.add(r)
	}
	return nil
}

// missing are the tests of which nothing was heard.
func missing(tests []test, results []result) []test {
	return slices.DeleteFunc(slices.Clone(tests), func(t test) bool {
		return slices.ContainsFunc(results, func(r result) bool { return r.id() == t.id() })
	})
}

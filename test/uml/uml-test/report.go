package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"
)

// report is what became of the tests.
type report struct {
	verbose bool
	tests   []test // all of them, in order

	mu       sync.Mutex
	results  []result
	failures []string // of guests
}

// add notes a result; the output of a test that did not pass is printed at once.
func (r *report) add(res result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.results = append(r.results, res)
	if r.verbose || !res.passed() {
		fmt.Printf("=== %s %s, after %s\n%s", res.Package, res.Name, res.Took.Round(10*time.Millisecond), res.Output)
	}
}

// fail notes that a guest went wrong.
func (r *report) fail(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
	fmt.Fprintf(os.Stderr, "uml-test: "+format+"\n", args...)
}

// print sums up: a line for each package as go test prints it, what took longest, what is
// missing.
func (r *report) print(w io.Writer, took time.Duration) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	gone := missing(r.tests, r.results)
	for _, t := range gone {
		fmt.Fprintf(w, "no result: %s %s\n", t.Package, t.Name)
	}
	failed, skips := r.printPackages(w, gone)
	for _, res := range r.results {
		if res.Skipped {
			fmt.Fprintf(w, "skipped: %s %s\n", res.Package, res.Name)
		}
	}
	fmt.Fprintf(w, "longest:")
	for _, res := range r.longest(10) {
		fmt.Fprintf(w, " %s %.0fs", res.Name, res.Took.Seconds())
	}
	passed := len(r.results) - failed - skips
	fmt.Fprintf(w, "\nin %s, kernel %s:\n%d passed, %d failed, %d skipped\n", took.Round(time.Second), kernelName(),
		passed, failed+len(gone), skips)
	if failed+skips+len(gone)+len(r.failures) > 0 {
		return errors.New("not all tests passed")
	}
	return nil
}

// printPackages returns how many tests failed and were skipped.
func (r *report) printPackages(w io.Writer, gone []test) (failed, skips int) {
	var packages []string
	for _, t := range r.tests {
		if !slices.Contains(packages, t.Package) {
			packages = append(packages, t.Package)
		}
	}
	for _, p := range packages {
		var sum time.Duration
		n, word := 0, "ok  "
		for _, res := range r.results {
			if res.Package != p {
				continue
			}
			n, sum = n+1, sum+res.Took
			switch {
			case res.Code != 0:
				failed, word = failed+1, "FAIL"
			case res.Skipped:
				skips, word = skips+1, "FAIL"
			}
		}
		if slices.ContainsFunc(gone, func(t test) bool { return t.Package == p }) {
			word = "FAIL"
		}
		fmt.Fprintf(w, "%s\t%s\t%.3fs\t%d tests\n", word, p, sum.Seconds(), n)
	}
	return failed, skips
}

func (r *report) longest(n int) []result {
	sorted := slices.SortedFunc(slices.Values(r.results), func(a, b result) int { return int(b.Took - a.Took) })
	return sorted[:min(n, len(sorted))]
}

// kernelName is what uml-run was asked for.
func kernelName() string {
	if name := os.Getenv("CIM_UML_KERNEL"); name != "" {
		return name
	}
	return "of uml-run's choice"
}

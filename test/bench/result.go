package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"imagemanager.internal/test/bench/report"
)

// runResult is one run of a job.
type runResult struct {
	Seconds, User, System float64
	Others                float64 // percent of one CPU that other programs used
	Report                report.Report
}

// series are the runs of a job that count.
type series struct {
	Job, Kind string
	Runs      []runResult
	Discarded int
}

// setResult is what was measured with one archive, or one object.
type setResult struct {
	Set    set
	Series []series
}

// results are everything on the page.
type results struct {
	Machine  []string
	Tools    []string
	Others   float64
	Unpack   []setResult
	Download []setResult
	Start    []series
	Many     []many
}

// many is how the daemon does beside many active images.
type many struct {
	Images     int
	Rate       float64 // of duplicate messages, a second
	Ready      string  // from the start until the daemon takes work
	Activation float64 // ms, the median
}

func (s series) seconds() []float64 {
	all := make([]float64, 0, len(s.Runs))
	for _, r := range s.Runs {
		all = append(all, r.Seconds)
	}
	slices.Sort(all)
	return all
}

// median is 0 without a run.
func median(sorted []float64) float64 {
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func (s series) median() float64 { return median(s.seconds()) }

func (s series) min() float64 {
	if all := s.seconds(); len(all) > 0 {
		return all[0]
	}
	return 0
}

func (s series) max() float64 {
	if all := s.seconds(); len(all) > 0 {
		return all[len(all)-1]
	}
	return 0
}

// rss is the most memory that a run took, in bytes.
func (s series) rss() (most int64) {
	for _, r := range s.Runs {
		most = max(most, r.Report.RSS)
	}
	return most
}

// of is the median of something about the runs.
func (s series) of(what func(runResult) float64) float64 {
	all := make([]float64, 0, len(s.Runs))
	for _, r := range s.Runs {
		all = append(all, what(r))
	}
	slices.Sort(all)
	return median(all)
}

// phase is the median of one phase, in seconds.
func (s series) phase(name string) float64 {
	return s.of(func(r runResult) float64 {
		for _, p := range r.Report.Phases {
			if p.Name == name {
				return p.Seconds
			}
		}
		return 0
	})
}

// String is a line on the terminal.
func (s series) String() string {
	return fmt.Sprintf("%8.3f s [%.3f–%.3f] n=%d, %d discarded", s.median(), s.min(), s.max(), len(s.Runs), s.Discarded)
}

// find returns the series of a job, empty without one.
func (r setResult) find(job string) series {
	for _, s := range r.Series {
		if s.Job == job {
			return s
		}
	}
	return series{Job: job}
}

// machine describes this machine, as far as figures depend on it.
func machine() []string {
	model := "CPU unknown"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		release = []byte("unknown")
	}
	number, _, _ := strings.Cut(strings.TrimSpace(string(release)), "-")
	return []string{
		fmt.Sprintf("%d CPUs (%s)", runtime.NumCPU(), model), "Linux " + number,
		strings.Replace(runtime.Version(), "go", "Go ", 1),
	}
}

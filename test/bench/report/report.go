// Package report is what a program that is timed says of itself at its end.
package report

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"
)

// Phase is one phase of a run.
type Phase struct {
	Name    string
	Seconds float64
}

// Report is what is printed, as JSON.
type Report struct {
	RSS    int64 // bytes of memory, at most
	Phases []Phase
}

// Watch is a stopwatch with laps.
type Watch struct {
	last   time.Time
	phases []Phase
}

// Start starts a stopwatch.
func Start() *Watch { return &Watch{last: time.Now()} }

// Lap ends a phase.
func (w *Watch) Lap(name string) {
	now := time.Now()
	w.phases = append(w.phases, Phase{name, now.Sub(w.last).Seconds()})
	w.last = now
}

// Print prints the report.
func (w *Watch) Print() error {
	rss, err := peak()
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(Report{rss, w.phases})
}

// peak is the most memory that this program had. The parent would be told the larger one
// of that and what it had itself when it started the child.
func peak() (int64, error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	var kib int64
	_, err = fmt.Sscanf(strings.TrimSpace(rest), "%d kB", &kib)
	return kib << 10, err
}

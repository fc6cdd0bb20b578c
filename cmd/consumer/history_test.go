package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"imagemanager.internal/internal/store"
)

// followed runs a command line that goes on. It returns its lines as they come, and what
// ends it: as Ctrl-C does, and returns the exit code.
func followed(t *testing.T, line string) (lines *bufio.Scanner, end func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	code := make(chan int)
	go func() {
		n := report(dispatch(ctx, strings.Fields(line), w), io.Discard)
		_ = w.Close() // it is a pipe
		code <- n
	}()
	return bufio.NewScanner(r), func() int {
		cancel()
		go func() { _, _ = io.Copy(io.Discard, r) }()
		return <-code
	}
}

// next returns the next line.
func next(t *testing.T, lines *bufio.Scanner) string {
	t.Helper()
	if !lines.Scan() {
		t.Fatalf("it ended: %v", lines.Err())
	}
	return lines.Text()
}

// New events are printed as they come, those of a newer version of the key as well, and
// no others. Ctrl-C is a good end.
func TestHistoryFollows(t *testing.T) {
	j := begun(t)
	img := j.pending("images/a.tar", "1")
	lines, end := followed(t, "history -f a.tar")
	if have := next(t, lines); !strings.HasPrefix(have, "SEQ") || !strings.Contains(have, "FAILURES") {
		t.Errorf("%q are no titles", have)
	}
	next(t, lines)
	other := j.pending("images/b.tar", "1")
	must[store.Attempt](j)(j.Begin(t.Context(), other.ID, store.StageDownload))
	for range 2 {
		a := must[store.Attempt](j)(j.Begin(t.Context(), img.ID, store.StageDownload))
		must[store.Image](j)(j.Fail(t.Context(), a, store.Failure{Verdict: "retry", Reason: "timed out"}))
	}
	j.pending("images/a.tar", "2")
	for _, want := range []string{
		"1 download begun 0", "1 download failed 1", "1 download begun 1", "1 download failed 2", "3 - queued 0",
	} {
		if have := strings.Join(strings.Fields(next(t, lines))[2:6], " "); have != want {
			t.Errorf("%q, want %q", have, want)
		}
	}
	if code := end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// For programs each event is an object on its line, or a number.
func TestHistoryFollowsForPrograms(t *testing.T) {
	j := begun(t)
	img := j.pending("images/a.tar", "1")
	lines, end := followed(t, "history -f --json 1")
	numbers, endNumbers := followed(t, "history -fq 1")
	next(t, lines)
	next(t, numbers)
	must[store.Attempt](j)(j.Begin(t.Context(), img.ID, store.StageDownload))
	var e store.Event
	if err := json.Unmarshal([]byte(next(t, lines)), &e); err != nil || e.Kind != store.EventBegun || e.Seq != 2 {
		t.Errorf("%+v, %v", e, err)
	}
	if have := next(t, numbers); have != "2" {
		t.Errorf("%q", have)
	}
	if end() != 0 || endNumbers() != 0 {
		t.Error("it did not end well")
	}
}

// An image that begins to be followed amid its life has the failures of before.
func TestFailuresOfBefore(t *testing.T) {
	j := begun(t)
	img := j.pending("images/a.tar", "1")
	for range 3 {
		a := must[store.Attempt](j)(j.Begin(t.Context(), img.ID, store.StageDownload))
		must[store.Image](j)(j.Fail(t.Context(), a, store.Failure{Verdict: "retry", Reason: "timed out"}))
	}
	events := must[[]store.Event](j)(j.History(t.Context(), img.ID))
	counted, err := (&output{}).eventPrinter(false).count(t.Context(), j.Store, events[len(events)-2:])
	if err != nil || counted[0].failures != 2 || counted[1].failures != 3 {
		t.Errorf("%+v, %v", counted, err)
	}
}

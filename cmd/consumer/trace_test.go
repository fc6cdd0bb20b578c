package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"imagemanager.internal/internal/store"
)

// ticks makes a history: each event comes so many milliseconds after the first.
type ticks struct {
	events []store.Event
	try    int64
}

var first = time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)

func (h *ticks) at(ms int64, kind store.EventKind, stage store.Stage, more ...func(*store.Event)) *ticks {
	if kind == store.EventBegun {
		h.try++
	}
	e := store.Event{
		Seq: int64(len(h.events) + 1), Image: 7, At: first.Add(time.Duration(ms) * time.Millisecond), Kind: kind,
		Stage: stage, Attempt: h.try,
	}
	for _, set := range more {
		set(&e)
	}
	h.events = append(h.events, e)
	return h
}

func device(state store.DeviceState) func(*store.Event) {
	return func(e *store.Event) { e.Detail.Device = &store.Device{ID: 3, State: state} }
}

func failed(verdict, reason string) func(*store.Event) {
	return func(e *store.Event) { e.Verdict, e.Reason = verdict, reason }
}

// wholeHistory is that of an image whose first download failed.
func wholeHistory() *ticks {
	h := (&ticks{}).at(0, store.EventQueued, "").
		at(500, store.EventBegun, store.StageDownload).
		at(2500, store.EventFailed, store.StageDownload, failed("retry", "timed out")).
		at(4500, store.EventBegun, store.StageDownload).
		at(7500, store.EventDone, store.StageDownload).
		at(7500, store.EventBegun, store.StageUnpack)
	for i, state := range []store.DeviceState{
		store.DeviceReserved, store.DeviceCreated, store.DeviceFormatted, store.DeviceFilled, store.DeviceSealed,
	} {
		h.at(7500+[]int64{400, 420, 700, 17_500, 20_000}[i], store.EventStep, store.StageUnpack, device(state))
	}
	return h.at(27_600, store.EventDone, store.StageUnpack, device(store.DeviceReady)).
		at(27_600, store.EventBegun, store.StageActivate).
		at(27_610, store.EventStep, store.StageActivate, device(store.DeviceReserved)).
		at(27_700, store.EventStep, store.StageActivate, device(store.DeviceCreated)).
		at(28_000, store.EventDone, store.StageActivate, device(store.DeviceReady))
}

// histories are what an image can have gone through.
func histories() map[string]*ticks {
	ended := (&ticks{}).at(0, store.EventQueued, "").at(100, store.EventBegun, store.StageDownload).
		at(350, store.EventFailed, store.StageDownload, failed("rejected", "gzip"))
	again := wholeHistory()
	again.try = 4
	again.at(90_000_000, store.EventReopened, store.StageActivate).
		at(90_002_000, store.EventBegun, store.StageActivate)
	return map[string]*ticks{
		"1 active": wholeHistory(), "2 refused": ended, "3 made again, and goes on": again,
		"4 waits": (&ticks{}).at(0, store.EventQueued, ""),
		"5 has a further snapshot": wholeHistory().at(99_000_000, store.EventBegun, store.StageActivate).
			at(99_000_500, store.EventDone, store.StageActivate, device(store.DeviceReady)),
	}
}

// Every history is shown with its waits, its attempts and their steps; the bars fit the
// terminal.
func TestGoldenTrace(t *testing.T) {
	all := histories()
	var text strings.Builder
	for _, name := range []string{
		"1 active", "2 refused", "3 made again, and goes on", "4 waits", "5 has a further snapshot",
	} {
		last := all[name].events[len(all[name].events)-1]
		fmt.Fprintf(&text, "# %s\n", name)
		for _, r := range runsOf(all[name].events, last.At.Add(1500*time.Millisecond)) {
			for _, room := range []int{0, 72} {
				o := &output{out: &text, room: room}
				if err := o.printRun(r); err != nil {
					t.Fatal(err)
				}
			}
		}
		text.WriteString("\n")
	}
	same(t, "testdata/trace.txt", text.String())
	for line := range strings.Lines(text.String()) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > noTerminal {
			t.Errorf("%d letters: %s", n, line)
		}
	}
}

// The spans of a run add up to it.
func TestSpansAddUp(t *testing.T) {
	for name, h := range histories() {
		now := h.events[len(h.events)-1].At.Add(time.Second)
		for _, r := range runsOf(h.events, now) {
			var outer, inner, total int64
			for _, s := range r.Spans {
				switch s.Kind {
				case spanStep:
					inner += s.TookMS
				case spanAttempt:
					inner, outer = 0, s.TookMS
					total += s.TookMS
				case spanWait:
					total += s.TookMS
				}
				if inner > outer {
					t.Errorf("%s: the steps of %s take %d ms, it %d", name, s.Stage, inner, outer)
				}
			}
			if total != r.TookMS {
				t.Errorf("%s: spans of %d ms, the run took %d", name, total, r.TookMS)
			}
		}
	}
}

// Programs get the same.
func TestTraceJSON(t *testing.T) {
	someJournal(t)
	code, text := perform(t, "trace debian/12.tar --json")
	var got imageTrace
	if err := json.Unmarshal([]byte(text), &got); err != nil || code != 0 {
		t.Fatalf("exit code %d, %v: %s", code, err, text)
	}
	if got.Image != 3 || got.State != store.StateActive || len(got.Runs) != 1 || got.Runs[0].Ended == nil {
		t.Errorf("%s", text)
	}
	var b bytes.Buffer
	r := runsOf(wholeHistory().events, first)
	if err := printJSON(&b, imageTrace{7, "images/a.tar", store.StateActive, strings.Repeat("0", 32), r}); err != nil {
		t.Fatal(err)
	}
	same(t, "testdata/json/trace.json", b.String())
	if code, text := perform(t, "trace 1"); code != 0 || !strings.Contains(text, "  extract") {
		t.Errorf("exit code %d: %s", code, text)
	}
}

// The page on JSON has every field.
func TestTraceFieldsAreDocumented(t *testing.T) {
	documented(t, "consumer trace", fieldsOf(reflect.TypeFor[imageTrace](), ""))
	documented(t, "consumer trace", fieldsOf(reflect.TypeFor[imageRun](), "runs[]."))
	documented(t, "consumer trace", fieldsOf(reflect.TypeFor[journalSpan](), "runs[].spans[]."))
}

package main

import (
	"fmt"
	"time"

	"imagemanager.internal/internal/store"
)

// imageRun is the time from when an image became due until it was active, or had ended
// otherwise.
type imageRun struct {
	Began  time.Time     `json:"began_at"`
	Ended  *time.Time    `json:"ended_at"` // nil while it goes on
	TookMS int64         `json:"took_ms"`
	State  store.State   `json:"state"` // at its end
	Spans  []journalSpan `json:"spans"`
}

// journalSpan is the time between two events of a run.
type journalSpan struct {
	Kind    spanKind    `json:"kind"`
	Stage   store.Stage `json:"stage,omitempty"`
	Step    string      `json:"step,omitempty"` // of an attempt
	Try     int         `json:"try,omitempty"`  // which attempt at the stage in this run it is
	Began   time.Time   `json:"began_at"`
	Ended   *time.Time  `json:"ended_at"` // nil while it goes on
	TookMS  int64       `json:"took_ms"`
	Outcome string      `json:"outcome,omitempty"` // of an attempt: done, undone, a verdict
	Reason  string      `json:"reason,omitempty"`
}

// spanKind says what the time of a span went to.
type spanKind string

const (
	spanWait    spanKind = "wait"    // for a worker, a message, or the next attempt
	spanAttempt spanKind = "attempt" // at a stage, its steps included
	spanStep    spanKind = "step"    // of the attempt before it
)

// shortestWait is left out of a run if it is shorter: a hand-over takes some time, too.
const shortestWait = time.Millisecond

// steps name what was done when a device of the stage reached the state.
var steps = map[store.Stage]map[store.DeviceState]string{
	store.StageUnpack: {
		store.DeviceReserved: "judge", store.DeviceCreated: "create", store.DeviceFormatted: "mkfs",
		store.DeviceFilled: "extract", store.DeviceSealed: "read back", store.DeviceReady: "commit",
	},
	store.StageActivate: {
		store.DeviceReserved: "reserve", store.DeviceCreated: "create", store.DeviceReady: "activate",
	},
}

// timeline collects the runs of an image.
type timeline struct {
	runs    []imageRun
	at      store.Progress
	mark    time.Time           // end of the newest span that is no attempt
	attempt int                 // index of the span of the newest attempt
	stepped bool                // that attempt has steps
	tries   map[store.Stage]int // in the newest run
}

// runsOf returns the runs in the history of an image. What goes on is measured up to now.
// Further snapshots of an active image belong to no run.
func runsOf(events []store.Event, now time.Time) []imageRun {
	t := &timeline{}
	for _, e := range events {
		before := t.at
		t.at, _ = store.Fold(before, e) // a journal that does not fold is worth a look, too
		if before.State != store.StatePending && t.at.State == store.StatePending {
			t.runs = append(t.runs, imageRun{Began: e.At})
			t.mark, t.tries = e.At, map[store.Stage]int{}
			continue
		}
		if before.State == store.StatePending {
			t.take(e, before.Running)
		}
	}
	if t.at.State == store.StatePending {
		t.goOn(now)
	}
	return t.runs
}

func (t *timeline) run() *imageRun { return &t.runs[len(t.runs)-1] }

// take adds an event of the newest run.
func (t *timeline) take(e store.Event, running bool) {
	switch {
	case e.Kind == store.EventBegun:
		t.wait(&e.At, e.At)
		t.begin(e)
	case e.Kind == store.EventStep:
		t.step(e)
	case running && !t.at.Running:
		t.end(e)
	}
	if t.at.State != store.StatePending {
		r := t.run()
		r.Ended, r.State, r.TookMS = &e.At, t.at.State, e.At.Sub(r.Began).Milliseconds()
	}
}

func (t *timeline) add(s journalSpan, until time.Time) {
	s.TookMS = until.Sub(s.Began).Milliseconds()
	t.run().Spans = append(t.run().Spans, s)
}

// wait adds the time since the last mark, unless it is short.
func (t *timeline) wait(ended *time.Time, until time.Time) {
	if until.Sub(t.mark) >= shortestWait {
		t.add(journalSpan{Kind: spanWait, Stage: t.at.Stage, Began: t.mark, Ended: ended}, until)
	}
}

func (t *timeline) begin(e store.Event) {
	t.tries[e.Stage]++
	t.attempt, t.mark, t.stepped = len(t.run().Spans), e.At, false
	t.add(journalSpan{Kind: spanAttempt, Stage: e.Stage, Try: t.tries[e.Stage], Began: e.At}, e.At)
}

// step adds what led to the new state of a device.
func (t *timeline) step(e store.Event) {
	name := fmt.Sprintf("%s device %d", e.Detail.Device.State, e.Detail.Device.ID)
	if known := steps[e.Stage][e.Detail.Device.State]; known != "" {
		name = known
	}
	t.addStep(e, name)
}

func (t *timeline) addStep(e store.Event, name string) {
	t.add(journalSpan{Kind: spanStep, Stage: e.Stage, Step: name, Began: t.mark, Ended: &e.At}, e.At)
	t.mark, t.stepped = e.At, true
}

// end ends the newest attempt, and its last step.
func (t *timeline) end(e store.Event) {
	a := &t.run().Spans[t.attempt]
	a.Ended, a.TookMS, a.Outcome, a.Reason = &e.At, e.At.Sub(a.Began).Milliseconds(), string(e.Kind), e.Reason
	if e.Verdict != "" {
		a.Outcome = e.Verdict
	}
	if d := e.Detail.Device; t.stepped && e.Kind == store.EventDone && d != nil {
		t.addStep(e, steps[e.Stage][d.State])
	}
	t.mark = e.At
}

// goOn measures what has not ended.
func (t *timeline) goOn(now time.Time) {
	r := t.run()
	if r.State, r.TookMS = store.StatePending, now.Sub(r.Began).Milliseconds(); t.at.Running {
		a := &r.Spans[t.attempt]
		a.TookMS = now.Sub(a.Began).Milliseconds()
		return
	}
	t.wait(nil, now)
}

package store

import "fmt"

// Progress is the fold of an image's events: where it stands and what it has.
type Progress struct {
	State    State  `json:"state"`
	Stage    Stage  `json:"stage,omitempty"`    // the stage to be done next, "" for none
	Running  bool   `json:"running"`            // an attempt began and has not ended; after a crash: it was cut off
	Attempt  int64  `json:"attempt"`            // number of the newest attempt, over all stages
	Failures int    `json:"failures"`           // failed attempts since the last stage was done
	Reason   string `json:"reason,omitempty"`   // of the newest failure or reopening
	CutOffs  int    `json:"cut_offs,omitempty"` // attempts in a row that died with the process or the machine
	Doubt    State  `json:"doubt,omitempty"`    // the end suspected by the newest failure; the next may confirm it
	Rules    string `json:"rules,omitempty"`    // policy and limits of a refusal
	Blob     *Blob  `json:"blob,omitempty"`
	Tree     *Tree  `json:"tree,omitempty"`
}

// endStates are the verdicts of a failed attempt after which the image has ended. Any
// other verdict leaves it pending.
var endStates = map[State]bool{
	StateRejected: true, StateViolation: true, StateSuperseded: true, StateVanished: true, StateDead: true,
}

// Fold replays events in order, from the progress p on. A whole history begins with the
// zero Progress. Fold is pure. It returns ErrOrder or ErrFenced for an event that does
// not follow from those before it, and the progress up to there.
func Fold(p Progress, events ...Event) (Progress, error) {
	for _, e := range events {
		next, err := p.apply(e)
		if err != nil {
			return p, err
		}
		p = next
	}
	return p, nil
}

// apply is one step of the fold.
func (p Progress) apply(e Event) (Progress, error) {
	switch e.Kind {
	case EventQueued:
		if p.State != "" {
			return p, fmt.Errorf("%w: queued twice", ErrOrder)
		}
		p.State, p.Stage = StatePending, StageDownload
		return p, nil
	case EventBegun:
		return p.applyBegun(e)
	case EventReopened:
		return p.applyReopened(e)
	case EventRemoved:
		return p.applyRemoved(e)
	case EventResubmitted:
		if p.State != StateRemoved {
			return p, fmt.Errorf("%w: resubmitted in state %q", ErrOrder, p.State)
		}
		return Progress{State: StatePending, Stage: StageDownload, Attempt: p.Attempt}, nil
	case EventStep, EventDone, EventFailed, EventUndone:
		if e.Attempt != p.Attempt || !p.Running {
			return p, fmt.Errorf("%w: %s of attempt %d, current is %d (running: %t)",
				ErrFenced, e.Kind, e.Attempt, p.Attempt, p.Running)
		}
		return p.applyAttempt(e), nil
	}
	return p, fmt.Errorf("%w: unknown kind %q", ErrOrder, e.Kind)
}

// applyBegun starts the next attempt. A further snapshot of an active image is an attempt
// at its last stage.
func (p Progress) applyBegun(e Event) (Progress, error) {
	due := p.State == StatePending && e.Stage == p.Stage || p.State == StateActive && e.Stage == StageActivate
	if !due {
		return p, fmt.Errorf("%w: %s begun in state %q at stage %q", ErrOrder, e.Stage, p.State, p.Stage)
	}
	if e.Attempt != p.Attempt+1 {
		return p, fmt.Errorf("%w: attempt %d begun after %d", ErrFenced, e.Attempt, p.Attempt)
	}
	p.Attempt, p.Running = e.Attempt, true
	return p, nil
}

// applyAttempt applies an event of the running attempt: a step, or its end.
func (p Progress) applyAttempt(e Event) Progress {
	if e.Detail.Tree != nil {
		p.Tree = e.Detail.Tree
	}
	if e.Kind == EventStep {
		return p
	}
	p.Running = false
	switch {
	case e.Kind == EventDone:
		return p.applyDone(e)
	case e.Kind == EventUndone && e.Detail.CutOff && p.State == StatePending:
		p.CutOffs++
	case e.Kind == EventFailed && p.State == StatePending:
		return p.applyFailed(e)
	}
	return p
}

func (p Progress) applyDone(e Event) Progress {
	if e.Detail.Blob != nil {
		p.Blob = e.Detail.Blob
	}
	p.Failures, p.CutOffs, p.Doubt, p.Reason, p.Stage = 0, 0, "", "", e.Stage.next()
	if p.Stage == "" {
		p.State = StateActive
	}
	return p
}

func (p Progress) applyFailed(e Event) Progress {
	p.Failures++
	if e.Detail.Fetched > 0 { // an attempt with progress is not a step towards giving up
		p.Failures = 0
	}
	p.Reason, p.CutOffs, p.Doubt, p.Rules = e.Reason, 0, e.Detail.Doubt, e.Detail.Rules
	if end := State(e.Verdict); endStates[end] {
		return p.applyEnd(end, e)
	}
	return p
}

// applyEnd applies a final failure. An image whose snapshots were handed out stays
// active, whatever the verdict: somebody may be using them. So does an image that lost
// only its archive, since its device does not need the archive. The reason names the
// missing part. Any other image ends: its devices are destroyed, and its tree goes with
// them.
func (p Progress) applyEnd(end State, e Event) Progress {
	kept := KeptResults{Device: p.Tree != nil} // all that older events tell
	if e.Detail.Kept != nil {
		kept = *e.Detail.Kept
	}
	p.Stage = ""
	if kept.Snapshots == 0 && (e.Stage != StageDownload || !kept.Device) {
		p.State, p.Tree = end, nil
		return p
	}
	p.State, p.Rules = StateActive, ""
	switch {
	case !kept.Device:
		p.Tree, p.Reason = nil, "its own device is missing: "+e.Reason
	case e.Stage == StageDownload:
		p.Reason = "its archive is missing: " + e.Reason
	case e.Stage == StageActivate:
		p.Reason = "a snapshot is not active: " + e.Reason
	}
	return p
}

// applyReopened takes the image back to a stage whose result was lost. If the image is at
// an earlier stage already, it stays there. An image that ended without a result starts
// again from the beginning. An image removed by an operator does not, until the operator
// resubmits it.
func (p Progress) applyReopened(e Event) (Progress, error) {
	switch {
	case p.State == "" || p.State == StateRemoved:
		return p, fmt.Errorf("%w: reopened in state %q", ErrOrder, p.State)
	case p.State.Refused():
		return Progress{State: StatePending, Stage: StageDownload, Attempt: p.Attempt, Reason: e.Reason}, nil
	}
	if p.State == StateActive {
		p.Failures = 0
	}
	if p.Stage == "" || e.Stage == StageDownload || e.Stage == StageUnpack && p.Stage == StageActivate {
		p.Stage = e.Stage
	}
	p.State, p.Running, p.Reason, p.CutOffs = StatePending, false, e.Reason, 0
	switch {
	case e.Detail.Resumed: // nothing was lost
	case e.Stage == StageDownload:
		p.Blob = nil
	case e.Stage == StageUnpack:
		p.Tree = nil
	}
	return p, nil
}

// applyRemoved applies the removal of one snapshot or of the image. It is refused while
// somebody works on the image, and if an attempt was made since the operator looked.
func (p Progress) applyRemoved(e Event) (Progress, error) {
	if e.Attempt != p.Attempt {
		return p, fmt.Errorf("%w: removed as of attempt %d, current is %d", ErrFenced, e.Attempt, p.Attempt)
	}
	one := e.Detail.Device != nil
	if p.State == "" || p.State == StateRemoved || p.State == StatePending && p.Running ||
		one && p.State != StateActive {
		return p, fmt.Errorf("%w: removed in state %q", ErrOrder, p.State)
	}
	if one {
		return p, nil
	}
	return Progress{State: StateRemoved, Attempt: p.Attempt, Reason: e.Reason}, nil
}

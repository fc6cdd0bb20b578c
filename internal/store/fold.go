package store

import "fmt"

// Progress is the fold of an image's events: where it stands and what it has.
type Progress struct {
	State    State  `json:"state"`
	Stage    Stage  `json:"stage,omitempty"` // the stage to be done next, "" when none
	Running  bool   `json:"running"`         // an attempt has begun and not ended; after a crash: was cut off
	Attempt  int64  `json:"attempt"`         // number of the newest attempt, over all stages
	Failures int    `json:"failures"`        // attempts failed since the last stage that was done
	Reason   string `json:"reason,omitempty"`
	CutOffs  int    `json:"cut_offs,omitempty"` // attempts in a row that died with the process or the machine
	Doubt    State  `json:"doubt,omitempty"`    // the end that the newest failure suspects; the next one may confirm it
	Rules    string `json:"rules,omitempty"`    // policy and limits that a refusal was given under
	Blob     *Blob  `json:"blob,omitempty"`
	Tree     *Tree  `json:"tree,omitempty"`
}

// Fold replays events in order. It is pure; an event that does not follow from the ones
// before it is an ErrOrder or ErrFenced.
func Fold(events []Event) (Progress, error) {
	var p Progress
	for _, e := range events {
		next, err := p.apply(e)
		if err != nil {
			return p, fmt.Errorf("event %d: %w", e.Seq, err)
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
		return p.begun(e)
	case EventReopened:
		return p.reopened(e)
	case EventRemoved:
		return p.removed(e)
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
		return p.ended(e), nil
	}
	return p, fmt.Errorf("%w: unknown kind %q", ErrOrder, e.Kind)
}

// begun starts the next attempt. A further snapshot of an active image is an attempt at
// its last stage.
func (p Progress) begun(e Event) (Progress, error) {
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

// ended applies what an attempt writes while it runs, and its end.
func (p Progress) ended(e Event) Progress {
	if e.Detail.Tree != nil {
		p.Tree = e.Detail.Tree
	}
	if e.Kind == EventStep {
		return p
	}
	p.Running = false
	switch {
	case e.Kind == EventDone:
		if e.Detail.Blob != nil {
			p.Blob = e.Detail.Blob
		}
		p.Failures, p.CutOffs, p.Doubt, p.Reason, p.Stage = 0, 0, "", "", e.Stage.next()
		if p.Stage == "" {
			p.State = StateActive
		}
	case e.Kind == EventUndone && e.Detail.CutOff && p.State == StatePending:
		p.CutOffs++
	case e.Kind == EventFailed && p.State == StatePending:
		p.Failures++
		if e.Detail.Fetched > 0 { // an attempt that got further is no step towards giving up
			p.Failures = 0
		}
		p.Reason, p.CutOffs, p.Doubt, p.Rules = e.Reason, 0, e.Detail.Doubt, e.Detail.Rules
		if end := State(e.Verdict); ends[end] {
			p = p.refused(end, e)
		}
	}
	return p
}

// ends are the verdicts of a failed attempt that end the image; any other leaves it
// pending.
var ends = map[State]bool{StateRejected: true, StateViolation: true, StateSuperseded: true, StateVanished: true, StateDead: true}

// refused applies a final failure. An image that was handed out stays active, whatever
// the verdict: somebody may be using it. So does one whose archive alone was lost, since
// its device does not need the archive any more. The reason names what is missing. Of any
// other the devices are dropped, and the tree goes with them.
func (p Progress) refused(end State, e Event) Progress {
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

// reopened takes the image back to a stage whose result was lost. An image that is
// further back already stays there. One that ended without a result begins anew; one that
// an operator removed does not, unless he asks for it: Resubmitted.
func (p Progress) reopened(e Event) (Progress, error) {
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
	case e.Detail.Resumed: // what is there stays
	case e.Stage == StageDownload:
		p.Blob = nil
	case e.Stage == StageUnpack:
		p.Tree = nil
	}
	return p, nil
}

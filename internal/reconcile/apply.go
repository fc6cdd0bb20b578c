package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/store"
)

// Recovered says what Prepare found and did.
type Recovered struct {
	RolledBack int      `json:"rolled_back"` // devices of cut-off attempts
	RolledOn   int      `json:"rolled_on"`   // sealed devices, ready now
	ToActivate int      `json:"to_activate"` // snapshots that are not active: an Activation has them
	Lost       int      `json:"lost"`        // results lost by the pool: made again
	Blobs      int      `json:"blobs"`       // archives and temporary files without an image
	Foreign    []string `json:"foreign"`     // thin ids and files of others: left alone

	Problems []Problem `json:"problems,omitempty"` // what is unchanged, and tried again
}

// Problem is a difference left as it was.
type Problem struct {
	Action
	Error  string `json:"error"`
	Remedy string `json:"remedy"`

	err error
}

func problemOf(a Action, err error) Problem {
	return Problem{
		Action: a, Error: err.Error(), Remedy: remedyOf(err), err: fmt.Errorf("%s %s: %w", a.Kind, a.What, err),
	}
}

// remedyOf says what an operator can do about a problem. Every reconcile, and the next
// start, tries again.
func remedyOf(err error) string {
	switch {
	case errors.Is(err, devmapper.ErrBusy):
		return "end whoever has it open; it is tried again"
	case errors.Is(err, devmapper.ErrForeign):
		return "another device has its name: rename or remove that one; it is tried again"
	case store.Unwritable(err), errors.Is(err, syscall.ENOSPC):
		return "make room on the disk under the state directory; it is tried again"
	}
	return "it is tried again; `consumer doctor` looks at the machine"
}

// Err joins the problems; nil if there is none.
func (rc *Recovered) Err() error {
	var errs []error
	for _, pr := range rc.Problems {
		errs = append(errs, pr.asError())
	}
	return errors.Join(errs...)
}

func (pr Problem) asError() error { return fmt.Errorf("%w: %s", pr.err, pr.Remedy) }

func (rc *Recovered) add(a Action) {
	switch a.Kind {
	case RollBack:
		rc.RolledBack++
	case RollForward:
		rc.RolledOn++
	case MakeAgain:
		rc.Lost++
	case RemoveFile:
		rc.Blobs++
	case Report:
		rc.Foreign = append(rc.Foreign, a.What)
	case Reactivate, Deactivate, Resume:
	}
}

// Recover brings journal, pool and files into agreement after a crash, a power cut or a
// reboot: it is Prepare, and then activates the snapshots. What is left as it is comes
// first, then the error of Prepare.
func (r *Reconciler) Recover(ctx context.Context) (left, err error) {
	_, inactive, err := r.Prepare(ctx)
	if err != nil {
		return nil, err
	}
	alone := func(_ context.Context, do func() error) error { return do() }
	if err := inactive.Run(ctx, alone); err != nil {
		return nil, err
	}
	return inactive.Err(), nil
}

// Prepare brings journal, pool and files into agreement, but for the snapshots that are
// not active. Nothing else may use the pool meanwhile. It is idempotent: if it is killed
// at any point, the next run finishes, and a run after a complete one changes nothing. A
// device that was not sealed is rolled back, a sealed one is rolled forward. Unfinished
// images are left to the pipeline.
//
// If one thing cannot be brought into agreement, such as a device open elsewhere, it
// becomes a Problem and the others go on. The error is about the pool or the journal as a
// whole.
func (r *Reconciler) Prepare(ctx context.Context) (Recovered, *Activation, error) {
	var rc Recovered
	began := time.Now()
	list := r.pool.Active
	active, err := r.pool.ResumeSuspended() // readers of a suspended device cannot even be killed
	if err == nil {
		list = func() ([]devmapper.ActiveDevice, error) { return active, nil } // nobody else changes them
	} else {
		rc.Problems = append(rc.Problems, problemOf(Action{Kind: Resume, What: "suspended devices"}, err))
	}
	diff, err := r.diff(ctx, true, list)
	if err != nil {
		return rc, nil, errors.Join(err, rc.Err())
	}
	inactive := func(a Action) bool { return a.Kind == Reactivate }
	now := slices.DeleteFunc(slices.Clone(diff.Actions), inactive)
	rc.ToActivate = len(diff.Actions) - len(now)
	for _, a := range now {
		err := r.apply(ctx, &provision.Task{Image: a.image}, a)
		if ctx.Err() != nil {
			return rc, nil, context.Cause(ctx)
		}
		if err != nil {
			rc.Problems = append(rc.Problems, problemOf(a, err))
			continue
		}
		rc.add(a)
	}
	r.metrics.prepared(began, rc)
	r.logRecovered(rc)
	if err := r.countLeftovers(ctx, diff, true); err != nil { // it only measures
		r.log.Warn().Err(err).Msg("what is left over cannot be counted")
	}
	return rc, r.newActivation(diff.Actions, rc.Problems), nil
}

func (r *Reconciler) logRecovered(rc Recovered) {
	for _, pr := range rc.Problems {
		r.logProblem(pr)
	}
	line, text := r.log.Info(), "journal, pool and files agree"
	switch {
	case len(rc.Problems) > 0:
		line, text = r.log.Warn(), "journal, pool and files agree but for what is left as it is"
	case len(rc.Foreign) > 0:
		line, text = r.log.Warn(), "journal, pool and files agree but for what is not the journal's: it is left alone"
	}
	line.Interface("recovered", rc).Msg(text)
}

func (r *Reconciler) logProblem(pr Problem) {
	r.log.Error().Err(pr.err).Str("remedy", pr.Remedy).Int64("image_id", pr.Image).Int64("device_id", pr.Device).
		Msg("left as it is")
}

// apply carries out one action and counts it. It may find its work done already.
func (r *Reconciler) apply(ctx context.Context, t *provision.Task, a Action) error {
	err := r.carryOut(ctx, t, a)
	if err == nil {
		r.metrics.did(a.Kind)
	}
	return err
}

func (r *Reconciler) carryOut(ctx context.Context, t *provision.Task, a Action) error {
	id := devmapper.ID(a.device.ID)
	switch a.Kind {
	case RollBack:
		return r.host.Devices.Destroy(ctx, a.device)
	case RollForward:
		return r.host.RollForward(ctx, t, a.device)
	case MakeAgain:
		return r.recordLoss(ctx, t, a.device)
	case Reactivate:
		_, err := r.pool.Activate(id, devmapper.KindSnapshot, a.device.Bytes, false)
		return err
	case Deactivate:
		return r.pool.Deactivate(id)
	case RemoveFile:
		return a.remove(ctx)
	case Report:
		if a.foreign == 0 {
			return a.unseen
		}
		return r.store.AdvanceDeviceIDs(ctx, int64(a.foreign)) // its id is not to be handed out
	}
	return fmt.Errorf("no such action: %q", a.Kind)
}

// recordLoss takes an image back to the stage of the lost result. Nothing is
// done to the device's id in the pool: a loss that turns out to be none destroys nothing.
func (r *Reconciler) recordLoss(ctx context.Context, t *provision.Task, d store.Device) error {
	if d.ID == 0 {
		return r.record.Reopen(ctx, t, store.StageUnpack,
			fmt.Errorf("%w: the image has no device", provision.ErrResultLost))
	}
	if t.Image.State.Refused() {
		return r.store.SetDeviceState(ctx, d.ID, store.DeviceGone)
	}
	return r.record.LoseDevice(ctx, t, d,
		fmt.Sprintf("%v: the pool does not have device %d", provision.ErrResultLost, d.ID))
}

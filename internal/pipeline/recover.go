package pipeline

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
)

// Recovered says what Recover found and did.
type Recovered struct {
	RolledBack  int      `json:"rolled_back"` // devices of attempts that were cut off
	RolledOn    int      `json:"rolled_on"`   // sealed devices that became ready
	Reactivated int      `json:"reactivated"` // snapshots that were not active
	Lost        int      `json:"lost"`        // results that the pool does not have: made again
	Blobs       int      `json:"blobs"`       // archives and temporary files that no image claims
	Foreign     []string `json:"foreign"`     // thin ids and files that are not ours: left alone

	Problems []Problem `json:"problems,omitempty"` // what is as it was; it is tried again
}

// Problem is something that could not be brought into agreement.
type Problem struct {
	Action
	Error  string `json:"error"`
	Remedy string `json:"remedy"`

	err error
}

func problemOf(a Action, err error) Problem {
	return Problem{Action: a, Error: err.Error(), Remedy: remedyOf(err), err: fmt.Errorf("%s %s: %w",
		a.Do, a.What, err)}
}

// remedyOf is what to do about a problem, besides waiting: it is tried again at every
// reconcile and at the next start.
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
func (r *Recovered) Err() error {
	var errs []error
	for _, pr := range r.Problems {
		errs = append(errs, fmt.Errorf("%w: %s", pr.err, pr.Remedy))
	}
	return errors.Join(errs...)
}

func (r *Recovered) add(a Action) {
	switch a.Do {
	case RollBack:
		r.RolledBack++
	case RollForward:
		r.RolledOn++
	case Reactivate:
		r.Reactivated++
	case MakeAgain:
		r.Lost++
	case RemoveFile:
		r.Blobs++
	case Report:
		r.Foreign = append(r.Foreign, a.What)
	case Deactivate, Resume:
	}
}

// Recover brings journal, pool and files into agreement after a crash, a power cut or a
// reboot. Nothing else may use the pool meanwhile. It is idempotent: killed at any point,
// the next run finishes; run twice, the second changes nothing. A device that was not
// sealed is rolled back, a sealed one is rolled forward; unfinished images are left to
// Run.
//
// What cannot be brought into agreement, such as a device that somebody holds, is a
// problem of that one thing: the others go on. The error is about the pool or the journal
// as a whole.
func (p *Pipeline) Recover(ctx context.Context) (Recovered, error) {
	var r Recovered
	if err := p.Pool.ResumeSuspended(); err != nil { // readers of a suspended device cannot even be killed
		r.Problems = append(r.Problems, problemOf(Action{Do: Resume, What: "suspended devices"}, err))
	}
	plan, err := p.Plan(ctx, true)
	if err != nil {
		return r, errors.Join(err, r.Err())
	}
	for _, a := range plan.Actions {
		err := p.apply(ctx, &Job{image: a.image}, a)
		if ctx.Err() != nil {
			return r, context.Cause(ctx)
		}
		if err != nil {
			r.Problems = append(r.Problems, problemOf(a, err))
			continue
		}
		r.add(a)
	}
	p.metrics.problems.Set(float64(len(r.Problems)))
	p.logRecovered(r)
	if err := p.countLeftovers(ctx, plan, true); err != nil { // it only measures
		p.Log.Warn().Err(err).Msg("what is left over cannot be counted")
	}
	return r, nil
}

func (p *Pipeline) logRecovered(r Recovered) {
	for _, pr := range r.Problems {
		p.Log.Error().Err(pr.err).Str("remedy", pr.Remedy).Int64("image_id", pr.Image).Int64("device_id", pr.Device).
			Msg("left as it is")
	}
	line, text := p.Log.Info(), "journal, pool and files agree"
	if len(r.Problems) > 0 {
		line, text = p.Log.Warn(), "journal, pool and files agree but for what is left as it is"
	}
	line.Interface("recovered", r).Msg(text)
}

// apply carries out one action. Each may find its work done.
func (p *Pipeline) apply(ctx context.Context, job *Job, a Action) error {
	id := devmapper.ID(a.device.ID)
	switch a.Do {
	case RollBack:
		return p.drop(ctx, a.device)
	case RollForward:
		return p.rollForward(ctx, job, a.device)
	case MakeAgain:
		return p.lose(ctx, job, a.device)
	case Reactivate:
		_, err := p.Pool.Activate(id, devmapper.KindSnapshot, a.device.Bytes, false)
		return err
	case Deactivate:
		return p.Pool.Deactivate(id)
	case RemoveFile:
		return a.remove(ctx)
	case Report:
		if a.foreign == 0 {
			return a.unseen
		}
		return p.Store.AdvanceDeviceIDs(ctx, int64(a.foreign)) // its id is not to be handed out
	}
	return fmt.Errorf("no such action: %q", a.Do)
}

// rollForward finishes an unpack that was cut off after the seal. The attempt begins when
// nothing can hold it up any more.
func (p *Pipeline) rollForward(ctx context.Context, job *Job, d store.Device) error {
	if err := p.Pool.Deactivate(devmapper.ID(d.ID)); err != nil {
		return err
	}
	if err := p.begin(ctx, job, store.StageUnpack); err != nil {
		return err
	}
	return p.makeReady(ctx, job, d)
}

// lose takes an image back to the stage whose result the pool does not have any more. The
// journal forgets the result; nothing is done to its id in the pool, so that a loss that
// was none would destroy nothing.
func (p *Pipeline) lose(ctx context.Context, job *Job, d store.Device) error {
	if d.ID == 0 {
		return p.reopen(ctx, job, store.StageUnpack, fmt.Errorf("%w: the image has no device", errLost))
	}
	if job.image.State.Refused() {
		return p.Store.SetDevice(ctx, d.ID, store.DeviceGone)
	}
	img, err := p.Store.Lose(ctx, d, fmt.Sprintf("%v: the pool does not have device %d", errLost, d.ID))
	if err != nil {
		return err
	}
	job.image = img
	p.event(job, store.EventReopened, img.Stage).Int64("device_id", d.ID).Str("kind", string(d.Kind)).
		Msgf("%s is made again: %s", img.Stage, img.Reason)
	return nil
}

package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

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
	case Deactivate:
	}
}

// Recover brings journal, pool and files into agreement after a crash, a power cut or a reboot. Nothing else may use the pool
// meanwhile. It is idempotent: killed at any point, the next run finishes; run twice, the second changes nothing.
// A device that was not sealed is rolled back, a sealed one is rolled forward; unfinished images are left to Run.
func (p *Pipeline) Recover(ctx context.Context) (Recovered, error) {
	var r Recovered
	if err := p.Pool.ResumeSuspended(); err != nil { // readers of a suspended device cannot even be killed
		return r, err
	}
	plan, err := p.Plan(ctx, true)
	if err != nil {
		return r, err
	}
	for _, a := range plan {
		if err := p.apply(ctx, &Job{image: a.image}, a); err != nil {
			return r, fmt.Errorf("%s %s: %w", a.Do, a.What, err)
		}
		r.add(a)
	}
	p.Log.Info().Interface("recovered", r).Msg("journal, pool and files agree")
	if err := p.countLeftovers(ctx, plan); err != nil { // it only measures
		p.Log.Warn().Err(err).Msg("what is left over cannot be counted")
	}
	return r, nil
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
		return a.remove()
	case Report:
		if a.foreign == 0 {
			return nil
		}
		return p.Store.SkipDevices(ctx, int64(a.foreign)) // its id is not to be handed out
	}
	return fmt.Errorf("no such action: %q", a.Do)
}

// rollForward finishes an unpack that was cut off after the seal.
func (p *Pipeline) rollForward(ctx context.Context, job *Job, d store.Device) error {
	if err := p.begin(ctx, job, store.Unpack); err != nil {
		return err
	}
	if err := p.Pool.Deactivate(devmapper.ID(d.ID)); err != nil {
		return err
	}
	img, err := p.Store.Unpacked(ctx, job.attempt, d)
	if err != nil {
		return err
	}
	job.image = img
	p.event(job, store.Done, store.Unpack).Int64("device_id", d.ID).Msg("unpack finished: its device was sealed")
	return nil
}

// lose takes an image back to the stage whose result the pool does not have any more.
func (p *Pipeline) lose(ctx context.Context, job *Job, d store.Device) error {
	stage := store.Unpack
	if d.Kind == store.SnapshotDevice {
		stage = store.Activate
	}
	if err := p.reopen(ctx, job, stage, fmt.Errorf("%w: the pool does not have device %d", errLost, d.ID)); err != nil {
		return err
	}
	return p.drop(ctx, d)
}

// Reconcile is Recover beside running jobs: it leaves alone whatever a job works on, and whatever changed since it looked. The
// caller keeps other commands out of the pool.
func (p *Pipeline) Reconcile(ctx context.Context) error {
	plan, err := p.Plan(ctx, false)
	if err != nil {
		return err
	}
	var errs []error
	for _, a := range plan {
		if err := p.applyIdle(ctx, a); err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", a.Do, a.What, err))
		}
	}
	return errors.Join(append(errs, p.countLeftovers(ctx, plan))...)
}

// applyIdle applies an action to an image that no job works on, and that is still as it was when the plan was made.
func (p *Pipeline) applyIdle(ctx context.Context, a Action) error {
	if a.image.ID == 0 {
		if a.Do != Report {
			p.Log.Warn().Str("action", string(a.Do)).Str("what", a.What).Msg("reconcile")
		}
		return p.apply(ctx, nil, a)
	}
	due := p.dueOf(a.image.ID)
	job, fresh := p.take(a.image.ID, nil)
	if !fresh {
		return nil
	}
	img, err := p.Store.Image(ctx, a.image.ID)
	if err == nil && img.UpdatedAt.Equal(a.image.UpdatedAt) && !p.changed(ctx, a) {
		job.image = img
		p.logJob(job).Warn().Str("action", string(a.Do)).Str("what", a.What).Msg("reconcile")
		err = p.apply(ctx, job, a)
	}
	p.finish(ctx, job, afterwards(a, img, job.image, due, err))
	return err
}

// afterwards is the outcome for the messages that came while an action had the image. What was lost is to be made again now. An image that
// waited goes on waiting: for its time, or for its message, which another host may have by now.
func afterwards(a Action, before, after store.Image, due time.Time, err error) outcome {
	switch {
	case err == nil && before.State != store.Pending && after.State != store.Pending:
		return done
	case a.Do == MakeAgain || a.Do == RollForward:
		return abandoned
	case due.IsZero():
		return outcome{verdict: retry, left: true}
	}
	return outcome{verdict: retry, delay: max(time.Until(due), 0)}
}

// changed tells whether the device of an action is no longer what it was.
func (p *Pipeline) changed(ctx context.Context, a Action) bool {
	if a.device.ID == 0 {
		return false
	}
	devices, err := p.Store.DevicesOf(ctx, a.image.ID)
	if err != nil {
		return true
	}
	for _, d := range devices {
		if d.ID == a.device.ID {
			return d.State != a.device.State || !d.UpdatedAt.Equal(a.device.UpdatedAt)
		}
	}
	return true
}

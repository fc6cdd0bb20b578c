// Package reconcile compares the journal with the pool and the files of this host, says
// what differs, and does something about it. It also rebuilds a lost journal from the
// pool.
//
// reading.go reads the journal, the pool and the files, and diff.go finds the
// differences: both change nothing. apply.go acts on them, when the program starts and
// nobody works on images, or beside running jobs: Jobs keeps those away. scan.go reads
// the seal records of a pool without a journal, and rebuild.go makes a new journal from
// them.
package reconcile

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/store"
)

// Jobs are the images being worked on in this process.
type Jobs interface {
	// Working returns the images with a job.
	Working() map[int64]bool
	// Take keeps every other job away from an image until Finish. It reports false if a
	// job works on the image already.
	Take(image int64) (t *provision.Task, free bool)
	// Due returns when a waiting image is taken up again; zero if it does not wait.
	Due(image int64) time.Time
	// Finish ends what Take began.
	Finish(ctx context.Context, t *provision.Task, o Outcome)
}

// Outcome says what becomes of an image after a reconcile had it.
type Outcome struct {
	Whole bool      // the image is active: its new messages are done
	Due   time.Time // otherwise: when it is taken up; zero if it waits for its message
}

// Reconciler brings journal, pool and files into agreement.
type Reconciler struct {
	store    *store.Store
	pool     *devmapper.Pool
	archives *download.Downloader
	host     *provision.Host
	record   *provision.Recorder
	jobs     Jobs
	log      zerolog.Logger
	metrics  *Metrics
}

// Deps are what a Reconciler works with. Without Jobs nobody works on images in this
// process.
type Deps struct {
	Store    *store.Store
	Pool     *devmapper.Pool
	Archives *download.Downloader
	Host     *provision.Host
	Recorder *provision.Recorder
	Jobs     Jobs
	Log      zerolog.Logger
	Metrics  *Metrics
}

// New returns a Reconciler.
func New(d Deps) *Reconciler {
	return &Reconciler{
		store: d.Store, pool: d.Pool, archives: d.Archives, host: d.Host, record: d.Recorder,
		jobs: d.Jobs, log: d.Log, metrics: d.Metrics,
	}
}

// Reconcile is Recover beside running jobs. It leaves alone whatever a job works on, and
// whatever changed since it looked. The caller keeps other commands out of the pool. It
// returns how many images it did not look at because somebody worked on them.
func (r *Reconciler) Reconcile(ctx context.Context) (inHand int, err error) {
	began := time.Now()
	diff, err := r.Diff(ctx, false)
	if err != nil {
		return 0, err
	}
	var problems []Problem
	for _, a := range diff.Actions {
		if err := r.applyBesideJobs(ctx, a); err != nil {
			problems = append(problems, problemOf(a, err))
		}
	}
	r.metrics.ended(began, len(problems))
	errs := []error{r.countLeftovers(ctx, diff, false)}
	for _, pr := range problems {
		errs = append(errs, pr.err)
	}
	return diff.InHand, errors.Join(errs...)
}

// applyBesideJobs applies an action to an image without a job, if the image is still as
// it was when the action was found.
func (r *Reconciler) applyBesideJobs(ctx context.Context, a Action) error {
	if a.image.ID == 0 {
		if a.Kind != Report {
			r.log.Warn().Str("action", string(a.Kind)).Str("what", a.What).Msg("reconcile")
		}
		return r.apply(ctx, nil, a)
	}
	due := r.jobs.Due(a.image.ID)
	t, free := r.jobs.Take(a.image.ID)
	if !free {
		return nil
	}
	img, err := r.store.Image(ctx, a.image.ID)
	unchanged := false
	if err == nil && img.UpdatedAt.Equal(a.image.UpdatedAt) {
		unchanged, err = r.stillApplies(ctx, a)
	}
	t.Image = a.image
	if err == nil {
		t.Image = img
	}
	if unchanged {
		r.record.Log(t).Warn().Str("action", string(a.Kind)).Str("what", a.What).Msg("reconcile")
		err = r.apply(ctx, t, a)
	}
	r.jobs.Finish(ctx, t, outcomeOf(a, applied{unchanged, img, t.Image, err}, due))
	return err
}

// applied is what came of an action.
type applied struct {
	still         bool // it still applied; otherwise nothing was done
	before, after store.Image
	err           error
}

// outcomeOf says what becomes of the image after an action. What was lost is made again
// now. A waiting image goes on waiting: for its time, or for its message, because another
// host may have it now.
func outcomeOf(a Action, r applied, due time.Time) Outcome {
	active := r.before.State == store.StateActive && r.after.State == store.StateActive
	switch {
	case r.still && r.err == nil && active:
		return Outcome{Whole: true}
	case a.Kind == MakeAgain || a.Kind == RollForward:
		return Outcome{Due: time.Now()}
	}
	return Outcome{Due: due}
}

// stillApplies reports whether the device of an action is as it was: in the journal, and
// if the pool did not have it, in the pool. Nobody else works on the image now.
func (r *Reconciler) stillApplies(ctx context.Context, a Action) (bool, error) {
	devices, err := r.store.DevicesOf(ctx, a.image.ID)
	if err != nil {
		return false, err
	}
	if a.device.ID == 0 { // it is about the image as a whole
		isReady := func(d store.Device) bool { return d.State == store.DeviceReady }
		return a.Kind != MakeAgain || !slices.ContainsFunc(devices, isReady), nil
	}
	i := slices.IndexFunc(devices, func(d store.Device) bool { return d.ID == a.device.ID })
	if i < 0 || devices[i].State != a.device.State || !devices[i].UpdatedAt.Equal(a.device.UpdatedAt) {
		return false, nil
	}
	if a.Kind != MakeAgain {
		return true, nil
	}
	thins, err := r.pool.Thins()
	isIt := func(th devmapper.Thin) bool { return int64(th.ID) == a.device.ID }
	return err == nil && !slices.ContainsFunc(thins, isIt), err
}

// countLeftovers counts what no row of the journal claims, after the actions.
func (r *Reconciler) countLeftovers(ctx context.Context, diff Diff, alone bool) (err error) {
	if slices.ContainsFunc(diff.Actions, func(a Action) bool { return a.Kind != Reactivate }) {
		if diff, err = r.Diff(ctx, alone); err != nil {
			return err
		}
	}
	count := map[string]int{}
	for _, a := range diff.Actions {
		if a.leftover != "" {
			count[a.leftover]++
		}
	}
	stray, err := r.pool.Leftovers()
	if err != nil {
		return err
	}
	count["mount"], count["loop_device"] = len(stray.Mounts), len(stray.Loops)
	count["dm_device"] += len(stray.Devices)
	for _, what := range stray.All() {
		r.log.Warn().Str("what", what).Msg("left over, and not ours to remove")
	}
	for _, kind := range leftovers {
		r.metrics.leftover(kind, count[kind])
	}
	return nil
}

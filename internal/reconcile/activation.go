package reconcile

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"imagemanager.internal/internal/failpoint"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/store"
)

// batchTime is how long other commands are kept out of the pool at once.
const batchTime = 100 * time.Millisecond

// Activation activates the snapshots that Prepare found inactive: after a boot, all that
// there are. Nobody has to wait for all of them. Run activates one after the other, and
// who needs those of an image calls Of. An image's are activated once, whoever is first.
//
// Nothing is recorded: to the journal they are active. After a crash or a stop, the next
// Prepare finds the rest.
type Activation struct {
	r       *Reconciler
	try     func(context.Context, Action) error // activates one; of tests, another
	order   []*inactive
	byImage map[int64]*inactive
	total   int
	done    atomic.Int64 // snapshots tried

	mu       sync.Mutex
	problems []Problem // those of Prepare first
}

// inactive are the inactive snapshots of an image.
type inactive struct {
	image   int64
	actions []Action
	once    sync.Once
}

// newActivation returns one for the snapshots among the actions. The problems are what
// was left before.
func (r *Reconciler) newActivation(actions []Action, left []Problem) *Activation {
	a := &Activation{r: r, byImage: map[int64]*inactive{}, problems: slices.Clone(left)}
	a.try = func(ctx context.Context, act Action) error {
		return r.apply(ctx, &provision.Task{Image: act.image}, act)
	}
	for _, act := range actions {
		if act.Kind != Reactivate {
			continue
		}
		of := a.byImage[act.Image]
		if of == nil {
			of = &inactive{image: act.Image}
			a.byImage[act.Image], a.order = of, append(a.order, of)
		}
		of.actions, a.total = append(of.actions, act), a.total+1
	}
	r.metrics.toActivate.Set(float64(a.total))
	return a
}

// Progress returns how many snapshots were tried, and how many there are. A nil
// Activation has none.
func (a *Activation) Progress() (done, total int) {
	if a == nil {
		return 0, 0
	}
	return int(a.done.Load()), a.total
}

// Run activates the snapshots until all were tried or ctx ends. alone calls do while
// other commands are kept out of the pool: they get their turn in between. What cannot be
// activated is a problem, and does not keep the others.
func (a *Activation) Run(ctx context.Context, alone func(ctx context.Context, do func() error) error) error {
	began := time.Now()
	for left := a.order; len(left) > 0; {
		failpoint.Here("before", "activations")
		err := alone(ctx, func() error {
			if left = a.batch(ctx, left); len(left) == 0 {
				return nil
			}
			return context.Cause(ctx)
		})
		if err != nil {
			return err
		}
	}
	a.report(began)
	return nil
}

// batch activates some of the snapshots and returns the others.
func (a *Activation) batch(ctx context.Context, left []*inactive) []*inactive {
	for began := time.Now(); len(left) > 0 && ctx.Err() == nil && time.Since(began) < batchTime; left = left[1:] {
		a.activate(ctx, left[0])
	}
	return left
}

// Of activates the snapshots of an image, or waits until somebody has. It costs next to
// nothing if there are none. The caller keeps others from the image.
func (a *Activation) Of(ctx context.Context, image int64) {
	if a == nil || int(a.done.Load()) == a.total || ctx.Err() != nil {
		return
	}
	if of := a.byImage[image]; of != nil {
		a.activate(ctx, of)
	}
}

// activate tries to activate the snapshots of an image. It finishes them all even if ctx
// ends.
func (a *Activation) activate(ctx context.Context, of *inactive) {
	of.once.Do(func() {
		ctx := context.WithoutCancel(ctx)
		ready, unread := a.r.stillReady(ctx, of)
		for _, act := range of.actions {
			err := unread
			if ready[act.Device] {
				err = a.try(ctx, act)
			}
			if err != nil {
				a.failed(problemOf(act, err))
			}
		}
		a.done.Add(int64(len(of.actions)))
		a.r.metrics.toActivate.Sub(float64(len(of.actions)))
	})
}

// stillReady returns the devices that are still to be active. An operator may have
// removed some since they were found.
func (r *Reconciler) stillReady(ctx context.Context, of *inactive) (map[int64]bool, error) {
	img, err := r.store.Image(ctx, of.image)
	if err != nil {
		return nil, err
	}
	devices, err := r.store.DevicesOf(ctx, of.image)
	if err != nil {
		return nil, err
	}
	ready := map[int64]bool{}
	for _, d := range devices {
		ready[d.ID] = provision.HandedOut(d) && img.State != store.StateRemoved
	}
	return ready, nil
}

func (a *Activation) failed(pr Problem) {
	a.r.logProblem(pr)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.problems = append(a.problems, pr)
}

// report says that all were tried.
func (a *Activation) report(began time.Time) {
	if a.total == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	failed := 0
	for _, pr := range a.problems {
		if pr.Kind == Reactivate {
			failed++
		}
	}
	a.r.metrics.left(len(a.problems))
	a.r.log.Info().Int("reactivated", a.total-failed).Int("failed", failed).Dur("took_ms", time.Since(began)).
		Msg("snapshots activated")
}

// Err joins what is left to be done, by Prepare and by the activations so far; nil if
// there is nothing.
func (a *Activation) Err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	for _, pr := range a.problems {
		errs = append(errs, pr.asError())
	}
	return errors.Join(errs...)
}

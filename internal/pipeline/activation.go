package pipeline

import (
	"context"
	"time"

	"github.com/rs/zerolog"

	"imagemanager.internal/internal/failpoint"
	"imagemanager.internal/internal/reconcile"
)

// activations activate the snapshots that the start found inactive, while other work goes
// on.
type activations struct {
	inactive   *reconcile.Activation // nil without a Recover
	alone      func(ctx context.Context, do func() error) error
	reconciled *lastReconcile
	log        zerolog.Logger
}

// run activates them one after the other. If somebody keeps the pool, it tries again.
func (as *activations) run(ctx context.Context) {
	if as.inactive == nil {
		return
	}
	began := time.Now()
	for {
		err := as.inactive.Run(ctx, as.alone)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			break
		}
		as.log.Warn().Err(err).Msg("snapshots cannot be activated now; it is tried again")
		wait(ctx, time.Second)
	}
	if _, total := as.inactive.Progress(); total > 0 {
		as.reconciled.ended(began, as.inactive.Err())
	}
	failpoint.Here("activated")
}

// of activates the snapshots of a job's image, if they have not had their turn. So
// nothing is answered for an image before they are active, and no stage meets who
// activates them.
func (as *activations) of(work context.Context, job *Job) { as.inactive.Of(work, job.Image.ID) }

// progress returns how many were tried, and how many there are; zeros when all were.
func (as *activations) progress() (done, total int) {
	if done, total = as.inactive.Progress(); done == total {
		return 0, 0
	}
	return done, total
}

package pipeline

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"imagemanager.internal/internal/awserr"
	"imagemanager.internal/internal/queue"
)

// depths asks the queues how many messages they have.
type depths struct {
	queue *queue.Client
	every time.Duration // 0: never
	gauge *prometheus.GaugeVec
	log   zerolog.Logger

	failing map[string]awserr.Class // by queue: why it could not be asked the last time
}

// watch works until ctx ends.
func (d *depths) watch(ctx context.Context) {
	for d.every > 0 && ctx.Err() == nil {
		d.measure(ctx, "main", d.queue.Depth)
		d.measure(ctx, "dead_letter", d.queue.DeadLetterDepth)
		wait(ctx, d.every)
	}
}

// measure asks one queue. What is not known has no series: an old number looks like a
// new one.
func (d *depths) measure(ctx context.Context, name string, ask func(context.Context) (queue.Depth, error)) {
	depth, err := ask(ctx)
	if errors.Is(err, queue.ErrNoDeadLetter) || ctx.Err() != nil {
		return
	}
	if err != nil {
		d.gauge.DeletePartialMatch(prometheus.Labels{"queue": name})
		d.logFailure(name, err)
		return
	}
	delete(d.failing, name)
	d.gauge.WithLabelValues(name, "visible").Set(float64(depth.Visible))
	d.gauge.WithLabelValues(name, "in_flight").Set(float64(depth.InFlight))
	d.gauge.WithLabelValues(name, "delayed").Set(float64(depth.Delayed))
}

// logFailure logs an error once, until the queue answers or fails for another reason.
func (d *depths) logFailure(name string, err error) {
	class := awserr.Classify(err)
	if d.failing[name] == class {
		return
	}
	d.failing[name] = class
	d.log.Warn().Err(err).Str("queue", name).Str("class", string(class)).
		Msg("the queue's depth is not known: allow sqs:GetQueueAttributes on it, or set SQS_DEPTH_INTERVAL=0")
}

package tracing

import (
	"errors"
	"sync"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel"
)

// reportEvery is the time between two lines about trouble with traces.
const reportEvery = time.Minute

// reporter writes the errors of OpenTelemetry to the log. A collector that is gone makes
// one for every batch of spans.
type reporter struct {
	log zerolog.Logger
	now func() time.Time

	mu    sync.Mutex
	last  time.Time
	quiet int // errors since the last line
}

// newReporter makes a reporter the one of the process.
func newReporter(log zerolog.Logger, now func() time.Time) *reporter {
	r := &reporter{log: log, now: now}
	otel.SetErrorHandler(r)
	otel.SetLogger(funcr.New(func(_, text string) { r.Handle(errors.New(text)) }, funcr.Options{}))
	return r
}

// Handle implements otel.ErrorHandler.
func (r *reporter) Handle(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if !r.last.IsZero() && now.Sub(r.last) < reportEvery {
		r.quiet++
		return
	}
	r.log.Warn().Err(err).Int("more", r.quiet).Msg("traces are not exported: is the collector there? work goes on")
	r.last, r.quiet = now, 0
}

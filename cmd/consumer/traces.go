package main

import (
	"context"

	"imagemanager.internal/internal/metric"
	"imagemanager.internal/internal/tracing"
)

// startTraces starts to send traces, if the environment asks for them. The last spans are
// sent when everything else has been closed.
func (s *system) startTraces(ctx context.Context) error {
	c, err := tracing.ReadConfig()
	if err != nil { // checkRun has refused it before
		return &usageError{err}
	}
	provider, stop, err := tracing.Start(ctx, c, metric.Version(), s.log)
	if err != nil {
		return err
	}
	s.traces = provider
	s.onClose(func() error {
		stop()
		return nil
	})
	return nil
}

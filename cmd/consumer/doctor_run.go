package main

import (
	"context"

	"github.com/rs/zerolog"

	"imagemanager.internal/internal/doctor"
)

// logFaults warns of what is not well.
func logFaults(log zerolog.Logger, found []doctor.Finding) {
	for _, f := range found {
		if f.Result != doctor.OK {
			log.Warn().Str("check", f.Check).Str("remedy", f.Remedy).Msg(f.Text)
		}
	}
}

// checkConnections warns of a bucket, a prefix or a notification that do not fit. It does
// so in the background: the start does not wait for AWS. Close waits for it.
func checkConnections(ctx context.Context, s *system) {
	cloud, err := newCloud(ctx, s)
	if err != nil {
		return // those of the pipeline cannot be made either, which ends the start
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if found := cloud.CheckConnections(ctx); ctx.Err() == nil {
			logFaults(s.log, found)
		}
	}()
	s.onClose(func() error {
		cancel()
		<-done
		return nil
	})
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"imagemanager.internal/internal/failpoint"
	"imagemanager.internal/internal/pipeline"
	"imagemanager.internal/internal/pipeline/health"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/queue"
)

func runCommand() *cobra.Command {
	return withSettings(&cobra.Command{
		Use:   "run",
		Short: "Take images from the queue until stopped",
		Long: `Run is the daemon. It needs S3_BUCKET and SQS_QUEUE_URL, a pool made by
"consumer pool create", and root. "consumer help settings" lists what else can be
set. SIGTERM lets running work end; a second one ends the process at once.`,
		Example: `  S3_BUCKET=my-bucket SQS_QUEUE_URL=https://sqs.us-east-1.amazonaws.com/123456789012/images \
      consumer run`,
		SuggestFor:  []string{"start", "serve", "daemon"},
		Annotations: exits(3, 4),
		RunE:        needs{config.checkRun, noJournal}.then(runDaemon),
	}, "bucket", "queue-url", "region", "endpoint-url", "policy", "listen")
}

// runDaemon is the daemon.
func runDaemon(ctx context.Context, c *call) error {
	surviveLog()
	s, cfg := c.system, c.cfg
	if err := cfg.checkDatabase(); err != nil { // before anything is made
		return err
	}
	s.log = newLogger(cfg.LogLevel, cfg.LogFormat, newPatientLog(os.Stderr), stderrIsTerminal())
	ready := newReadiness()
	defer notifySystemd(s.log, ready)()
	if err := s.waitLock(ctx, daemonLock, lookPatience); err != nil {
		return err
	}
	if err := s.startTraces(ctx); err != nil {
		return err
	}
	reg := newRegistry(cfg)
	s.metrics = provision.NewMetrics(reg)
	pipeline.RegisterReady(reg, ready.why)
	pipeline.RegisterConditions(reg, ready.reasons)
	if err := s.serveAdmin(ctx, adminPages(cfg, reg, ready)); err != nil {
		return err
	}
	logFaults(s.log, cfg.machine().CheckQuickly())
	checkConnections(ctx, s)
	if err := s.openDaemon(ctx); err != nil {
		return err
	}
	p, err := s.openPipeline(ctx, reg)
	if err != nil {
		return err
	}
	if err := p.ProbeDeadLetter(ctx); err != nil {
		if errors.Is(err, queue.ErrUnfit) {
			return &usageError{err}
		}
		return err
	}
	ready.follow(only{health.Recovering, errRecovering})
	if err := s.recoverPool(ctx, p); err != nil {
		return fmt.Errorf("recovery: %w", err)
	}
	ready.follow(working{p, ctx.Err})
	s.onClose(s.changeLevelOnSIGHUP())
	_, toActivate := p.Health().Activating()
	s.log.Info().Str("bucket", cfg.Bucket).Str("prefix", cfg.Prefix).Str("queue", cfg.QueueURL).
		Str("policy", cfg.Policy).Int("to_activate", toActivate).Msg("running")
	failpoint.Here("running")
	return p.Run(ctx)
}

// changeLevelOnSIGHUP makes the log change between the configured level and debug with
// every SIGHUP, until the function returned is called.
func (s *system) changeLevelOnSIGHUP() func() error {
	signals, gone := make(chan os.Signal, 1), make(chan struct{}) // buffered: package signal does not wait
	signal.Notify(signals, syscall.SIGHUP)
	go func() {
		defer close(gone)
		configured, other := zerolog.GlobalLevel(), zerolog.DebugLevel
		for range signals {
			if zerolog.GlobalLevel() == other {
				zerolog.SetGlobalLevel(configured)
			} else {
				zerolog.SetGlobalLevel(other)
			}
			s.log.Log().Str("log_level", zerolog.GlobalLevel().String()).Msg("log level changed")
		}
	}()
	return func() error {
		signal.Stop(signals)
		close(signals)
		<-gone
		return nil
	}
}

// openDaemon takes the journal and the pool.
func (s *system) openDaemon(ctx context.Context) error {
	if err := s.openStore(ctx); err != nil {
		return err
	}
	if err := s.openPool(ctx); err != nil {
		return err
	}
	s.raiseGeneration(ctx)
	return nil
}

// recoverPool runs recovery while no other command touches the pool. It waits for a
// command at work. Snapshots are activated later, beside the work.
func (s *system) recoverPool(ctx context.Context, p *pipeline.Pipeline) error {
	return s.holdingPool(ctx, startPatience, func() error {
		_, err := p.Recover(ctx)
		return err
	})
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"imagemanager.internal/internal/failpoint"
	"imagemanager.internal/internal/pipeline"
	"imagemanager.internal/internal/pipeline/health"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/queue"
)

func runCommand() command {
	return command{
		name: "run", short: "take images from the queue until stopped",
		noJSON: true, check: config.checkRun, open: noJournal, run: runDaemon,
	}
}

// runDaemon is the daemon.
func runDaemon(ctx context.Context, c *call) error {
	surviveLog()
	s, cfg := c.system, c.cfg
	s.log = newLogger(cfg.LogLevel, newPatientLog(os.Stderr), stderrIsTerminal())
	if err := s.waitLock(ctx, daemonLock, lookPatience); err != nil {
		return err
	}
	reg := newRegistry(cfg)
	s.metrics = provision.NewMetrics(reg)
	ready := newReadiness()
	pipeline.RegisterReady(reg, ready.why)
	pipeline.RegisterConditions(reg, ready.reasons)
	if err := s.serveAdmin(ctx, cfg.Listen, reg, ready); err != nil {
		return err
	}
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
	ready.is(health.Recovering, errRecovering)
	if err := s.recoverPool(ctx, p); err != nil {
		return fmt.Errorf("recovery: %w", err)
	}
	ready.follow(func() health.Reasons {
		why := p.Reasons()
		if ctx.Err() != nil {
			why[health.Stopping] = errStopping
		}
		return why
	})
	s.onClose(s.changeLevelOnSIGHUP())
	s.log.Info().Str("bucket", cfg.Bucket).Str("prefix", cfg.Prefix).Str("queue", cfg.QueueURL).
		Str("policy", cfg.Policy).Msg("running")
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
// command at work.
func (s *system) recoverPool(ctx context.Context, p *pipeline.Pipeline) error {
	return s.holdingPool(ctx, startPatience, func() error {
		_, err := p.Recover(ctx)
		return err
	})
}

// serveAdmin answers /metrics, /healthz (the process lives) and /readyz (it takes work,
// or why not). It listens before anything takes time, so that a probe sees a long
// recovery, and a bad address shows at once.
func (s *system) serveAdmin(ctx context.Context, addr string, reg *prometheus.Registry, ready http.Handler) error {
	if addr == "" {
		return nil
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metricsHandler(reg))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.Handle("GET /readyz", ready)
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("LISTEN_ADDR: %w", err)
	}
	srv := &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute, // no answer takes as long; scrapers come every minute
	}
	served := make(chan error, 1) // buffered: the goroutine ends even when nobody asks
	go func() { served <- srv.Serve(l) }()
	s.onClose(func() error {
		err := srv.Close()
		if e := <-served; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
		return err
	})
	s.log.Info().Str("addr", l.Addr().String()).Msg("serving metrics and health")
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"go.opentelemetry.io/otel/trace/noop"

	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/store"
)

// call is one use of a command.
type call struct {
	*system
	*output
	name string // the command's, without the program's
	args []string
	wait bool // --wait
}

// arg is the first argument, or empty.
func (c *call) arg() string { return strings.Join(c.args[:min(1, len(c.args))], "") }

// work is what a command does once its needs are met.
type work func(context.Context, *call) error

// needs must be met before a command begins.
type needs struct {
	settings func(config) error // refuses settings
	journal  openJournal
}

// openJournal opens the database at a path.
type openJournal func(ctx context.Context, path string) (*store.Store, error)

// noJournal is for a command that begins without the journal.
func noJournal(context.Context, string) (*store.Store, error) { return nil, nil } //nolint:nilnil // there is none

// common are the settings of concern to every command.
func common(cfg config) error { return errors.Join(cfg.checkCommon()...) }

// looking is for a command that only reads an existing database.
func looking(do work) func(*cobra.Command, []string) error {
	return needs{common, store.OpenToLook}.then(do)
}

// withJournal is for a command on an existing database.
func withJournal(do work) func(*cobra.Command, []string) error {
	return needs{common, store.OpenExisting}.then(do)
}

// then reads the settings, opens the journal, and does the work.
func (n needs) then(do work) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) (err error) {
		cfg, err := loadConfig(cmd.Flags())
		if err != nil {
			return err
		}
		if err := n.settings(cfg); err != nil {
			return &usageError{err}
		}
		c := &call{name: commandName(cmd), args: args}
		c.wait, _ = cmd.Flags().GetBool("wait")
		if c.output, err = newOutput(cmd); err != nil {
			return err
		}
		level := commandLevel
		if cmd.Flags().Changed("log-level") {
			level = cfg.LogLevel
		}
		if c.system, err = openSystem(cmd.Context(), cfg, level, n.journal); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, c.Close()) }()
		return do(cmd.Context(), c)
	}
}

// commandLevel is the lowest level that is logged by commands: they answer by themselves.
const commandLevel = "warn"

// openSystem opens the journal and the log.
func openSystem(ctx context.Context, cfg config, level string, open openJournal) (*system, error) {
	st, err := open(ctx, databasePath(cfg.StateDir))
	if err != nil {
		return nil, cfg.withoutDatabase(err)
	}
	s := &system{
		cfg: cfg, store: st, log: newLogger(level, cfg.LogFormat, os.Stderr, stderrIsTerminal()),
		metrics: provision.NewMetrics(prometheus.NewRegistry()), // nobody reads those of a command
		traces:  noop.NewTracerProvider(),
	}
	if st != nil {
		s.onClose(st.Close)
	}
	return s, nil
}

// commandName is a command without the program: one word or two.
func commandName(cmd *cobra.Command) string {
	return strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")
}

// checkArgs holds the arguments to the command's usage line: <needed>, [optional], or
// <several>... of them.
func checkArgs(cmd *cobra.Command, args []string) error {
	_, takes, _ := strings.Cut(cmd.Use, " ")
	switch {
	case takes == "" && len(args) > 0:
		return fmt.Errorf("%s takes no argument %q", commandName(cmd), args[0])
	case len(args) == 0 && strings.HasPrefix(takes, "<"), len(args) > 1 && !strings.HasSuffix(takes, "..."):
		return fmt.Errorf("%s takes one %s: see `%s --help`", commandName(cmd),
			strings.Replace(strings.Trim(takes, "[]"), "...", " or more", 1), cmd.CommandPath())
	}
	return nil
}

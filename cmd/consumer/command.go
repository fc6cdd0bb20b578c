package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace/noop"

	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/store"
)

// command is one sub-command. Its file has its constructor, and what it does.
type command struct {
	name  string // one word or two
	args  string // the one argument it takes: <needed>, [<optional>], or empty for none
	short string // one line for `consumer --help`

	flags  func(*flag.FlagSet)    // adds the command's own flags; may be nil
	noJSON bool                   // the command prints nothing for programs
	usage  func(arg string) error // refuses flags and argument that do not fit; may be nil
	check  func(config) error     // default: the settings of concern to every command
	open   openJournal            // default: store.OpenExisting
	run    func(context.Context, *call) error
}

// openJournal opens the database at a path.
type openJournal func(ctx context.Context, path string) (*store.Store, error)

// noJournal is for a command that begins without the journal.
func noJournal(context.Context, string) (*store.Store, error) { return nil, nil } //nolint:nilnil // there is none

// call is one use of a command.
type call struct {
	*system
	name   string // the command's
	arg    string // its argument, empty without one
	asJSON bool
	out    io.Writer
}

// perform reads the command line, opens the journal, and runs the command.
func (c command) perform(ctx context.Context, args []string, out io.Writer) (err error) {
	call := &call{name: c.name, out: out}
	fs := c.flagSet(out)
	if !c.noJSON {
		fs.BoolVar(&call.asJSON, "json", false, "print JSON for programs")
	}
	if c.flags != nil {
		c.flags(fs)
	}
	cfg, err := loadConfig(fs, args)
	if err != nil {
		return err
	}
	check := c.check
	if check == nil {
		check = func(cfg config) error { return errors.Join(cfg.checkCommon()...) }
	}
	if err := errors.Join(c.checkArgs(fs.Args()), check(cfg)); err != nil {
		return &usageError{err}
	}
	call.arg = fs.Arg(0)
	if call.system, err = openSystem(ctx, cfg, c.open); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, call.Close()) }()
	return c.run(ctx, call)
}

// openSystem opens the journal and the log.
func openSystem(ctx context.Context, cfg config, open openJournal) (*system, error) {
	if open == nil {
		open = store.OpenExisting
	}
	st, err := open(ctx, databasePath(cfg.StateDir))
	if errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("%w; is --state-dir right? `consumer pool create` makes a new database", err)
	}
	if err != nil {
		return nil, err
	}
	s := &system{
		cfg: cfg, store: st, log: newLogger(cfg.LogLevel, cfg.LogFormat, os.Stderr, stderrIsTerminal()),
		metrics: provision.NewMetrics(prometheus.NewRegistry()), // nobody reads those of a command
		traces:  noop.NewTracerProvider(),
	}
	if st != nil {
		s.onClose(st.Close)
	}
	return s, nil
}

// flagSet makes the flag set of a command; its usage goes to out.
func (c command) flagSet(out io.Writer) *flag.FlagSet {
	fs := flag.NewFlagSet(c.name, flag.ContinueOnError)
	fs.SetOutput(out)
	fs.Usage = func() {
		short := strings.ToUpper(c.short[:1]) + c.short[1:]
		fmt.Fprintf(out, "Usage: consumer %s [flags] %s\n\n%s.\n\n", c.name, c.args, short)
		fs.PrintDefaults()
	}
	return fs
}

// checkArgs refuses an argument too many, a missing one, and what usage refuses.
func (c command) checkArgs(args []string) error {
	switch {
	case c.args == "" && len(args) > 0:
		return fmt.Errorf("%s takes no argument %q", c.name, args[0])
	case len(args) > 1, len(args) == 0 && strings.HasPrefix(c.args, "<"):
		return fmt.Errorf("%s takes one %s; flags come first", c.name, strings.Trim(c.args, "[]"))
	case c.usage != nil:
		return c.usage(strings.Join(args, ""))
	}
	return nil
}

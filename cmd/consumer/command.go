package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"imagemanager.internal/internal/store"
)

// flags makes the flag set of a command; usage goes to out.
func flags(name, args string, out io.Writer) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(out)
	fs.Usage = func() {
		fmt.Fprintf(out, "Usage: consumer %s [flags] %s\n\n", name, args)
		fs.PrintDefaults()
	}
	return fs
}

// noArgs refuses what is left on the command line.
func noArgs(fs *flag.FlagSet) error {
	if fs.NArg() > 0 {
		return &usageError{fmt.Errorf("%s takes no argument %q", fs.Name(), fs.Arg(0))}
	}
	return nil
}

func jsonFlag(fs *flag.FlagSet) *bool { return fs.Bool("json", false, "print JSON for programs") }

// openCommand parses the command line and opens the journal.
func openCommand(ctx context.Context, fs *flag.FlagSet, args []string,
	open func(context.Context, string) (*store.Store, error),
) (*system, error) {
	cfg, err := loadConfig(fs, args)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(cfg.checkCommon()...); err != nil {
		return nil, &usageError{err}
	}
	st, err := open(ctx, databasePath(cfg.StateDir))
	if err != nil {
		return nil, err
	}
	s := &system{cfg: cfg, store: st, log: newLogger(cfg.LogLevel, os.Stderr, stderrIsTerminal())}
	s.onClose(st.Close)
	return s, nil
}

// show is a command on the journal, with something to print.
func show(ctx context.Context, name, argNames string, args []string, out io.Writer,
	do func(*system, *flag.FlagSet, bool) error,
) error {
	return showMore(ctx, name, argNames, args, out, func(*flag.FlagSet) {}, do)
}

// showMore is show with flags of its own.
func showMore(ctx context.Context, name, argNames string, args []string, out io.Writer, more func(*flag.FlagSet),
	do func(*system, *flag.FlagSet, bool) error,
) (err error) {
	fs := flags(name, argNames, out)
	asJSON := jsonFlag(fs)
	more(fs)
	s, err := openCommand(ctx, fs, args, store.OpenExisting)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if argNames == "" {
		if err := noArgs(fs); err != nil {
			return err
		}
	}
	return do(s, fs, *asJSON)
}

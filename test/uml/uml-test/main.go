// Command uml-test runs the tests of packages in several guests at once (see uml-run):
// each guest takes the next test as soon as it is free, so that all end at about the same
// time. Most of these tests wait for something, so there are more guests than CPUs.
//
//	uml-test [flags] package…
//	uml-test -alone ./test/crash -run Kill ./test/e2e
//
// A test runs in a process of its own, in the directory of its package. The output of a
// test that failed is printed, and at the end a line for each package, the longest tests
// and those that were skipped. The exit code is 1 if a test failed, or was skipped.
//
// On a machine that has dm-thin itself there is one "guest", which is the machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"imagemanager.internal/internal/devmapper"
)

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return fmt.Sprint(*l) }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

type options struct {
	guests    int
	run, skip string
	alone     list
	packages  []string
	verbose   bool
	agent     string
}

func main() {
	o, err := parse(os.Args[1:])
	if err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintf(os.Stderr, "uml-test: %v\n", err)
			os.Exit(2)
		}
		return
	}
	if err := run(o); err != nil {
		fmt.Fprintf(os.Stderr, "uml-test: %v\n", err)
		os.Exit(1)
	}
}

func run(o options) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if o.agent != "" {
		return serve(ctx, o.agent)
	}
	return suite(ctx, o)
}

func parse(args []string) (options, error) {
	o := options{}
	f := flag.NewFlagSet("uml-test", flag.ContinueOnError)
	f.IntVar(&o.guests, "guests", 3*runtime.NumCPU(), "guests at once")
	f.StringVar(&o.run, "run", ".", "run the tests whose names match this regular expression")
	f.StringVar(&o.skip, "skip", "", "and not those that match this one")
	f.Var(&o.alone, "alone",
		"each test of this package has a guest of its own and may bring its kernel down; may be given several times")
	f.BoolVar(&o.verbose, "v", false, "also print the output of tests that passed")
	f.StringVar(&o.agent, "agent", "", "in a guest: take the tests from this directory")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.packages = f.Args()
	if devmapper.Probe() == nil { // there are no guests, and tests may not be in each other's way
		o.guests = 1
	}
	if o.agent == "" && len(o.packages)+len(o.alone) == 0 {
		return o, errors.New("no packages; uml-test --help")
	}
	return o, nil
}

// Command consumer is the Container Image Manager: it takes container images from an S3
// bucket to active device-mapper snapshots.
//
// `consumer run` is the daemon. The other commands are for the operator beside it.
// exit.go has the exit codes.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// usageError is a mistake in the command line or the configuration.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

// errLocked is returned when another process works on the state directory.
var errLocked = errors.New("another instance is using the state directory")

func commands() []command {
	return []command{
		runCommand(),
		statusCommand(), imagesCommand(), snapshotsCommand(), historyCommand(),
		snapshotCommand(), verifyCommand(), reconcileCommand(), rmCommand(),
		submitCommand(), backfillCommand(), backupCommand(),
		quarantineListCommand(), quarantineShowCommand(), quarantineRequeueCommand(), quarantineDropCommand(),
		recoverCommand(),
		poolCreateCommand(), poolStatusCommand(), poolGrowCommand(), poolRepairCommand(), poolLocateCommand(),
		poolDetachCommand(),
	}
}

func main() { os.Exit(realMain()) }

func realMain() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the second signal ends the program at once
	return report(dispatch(ctx, os.Args[1:], os.Stdout), newPatientLog(os.Stderr))
}

// dispatch finds the command. Its name may have two words.
func dispatch(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return &usageError{fmt.Errorf("no command given: see `consumer --help`")}
	}
	switch args[0] {
	case "help", "-h", "-help", "--help":
		return printHelp(out)
	}
	for _, c := range commands() {
		switch {
		case args[0] == c.name:
			return c.perform(ctx, args[1:], out)
		case len(args) > 1 && args[0]+" "+args[1] == c.name:
			return c.perform(ctx, args[2:], out)
		}
	}
	return &usageError{fmt.Errorf("unknown command %q: see `consumer --help`", args[0])}
}

func printHelp(w io.Writer) error {
	fmt.Fprint(w, "Container Image Manager: it takes container images from an S3 bucket to active device-mapper "+
		"snapshots.\n\nUsage: consumer <command> [flags]\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-26s %s\n", c.name+" "+c.args, c.short)
	}
	fmt.Fprint(w, "\nEvery command takes --help, --state-dir, --log-level; those that print take --json.\n"+
		"Settings by environment; the flag of the same name wins:\n\n")
	if err := printEnvironment(w); err != nil {
		return err
	}
	printExitCodes(w)
	return nil
}

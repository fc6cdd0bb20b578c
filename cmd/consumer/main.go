// Command consumer takes container images from an S3 bucket to active device-mapper
// snapshots.
//
// `consumer run` is the daemon; the other commands are for the operator beside it. Exit
// codes: 0 success, 1 failure, 2 wrong usage or configuration, 3 the machine, the pool or
// the database is not as it must be, 4 another instance holds the state directory, 5 not
// found, 6 an image is not what was sealed, 7 recover left devices of the pool alone, 130
// interrupted.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/reconcile"
	"imagemanager.internal/internal/store"
)

// usageError is a mistake in the command line or the configuration.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

// errLocked says that another process works on the state directory.
var errLocked = errors.New("another instance is using the state directory")

// command is one sub-command.
type command struct {
	name  string
	args  string
	short string
	run   func(ctx context.Context, args []string, out io.Writer) error
}

func commands() []command {
	return []command{
		{"run", "", "take images from the queue until stopped", cmdRun},
		{"status", "", "what is queued, running, active, refused", cmdStatus},
		{"images", "", "every image with its state, device and digest", cmdImages},
		{"snapshots", "", "every active snapshot", cmdSnapshots},
		{"history", "<key|image>", "the journal of an image", cmdHistory},
		{"snapshot", "<key|image>", "make one more snapshot of an image", cmdSnapshot},
		{
			"verify", "<key|image>", "read an image's device and compare it with its seal; --all for every image",
			cmdVerify,
		},
		{
			"reconcile", "", "bring journal, pool and files into agreement; --dry-run shows what would be done",
			cmdReconcile,
		},
		{"rm", "<key|image|snapshot>", "remove an image, or one snapshot by its path or snapshot:ID", cmdRm},
		{"submit", "<key>", "enqueue an object by hand; one that was removed, again", cmdSubmit},
		{"backfill", "", "compare the bucket with the journal and enqueue what is missing", cmdBackfill},
		{"backup", "<file>", "copy the database, also while the daemon runs", cmdBackup},
		{"quarantine list", "", "messages that nothing came of", cmdQuarantineList},
		{"quarantine show", "<id>", "one such message, with its body", cmdQuarantineShow},
		{"quarantine requeue", "<id>", "send it to the queue once more, and forget it", cmdQuarantineRequeue},
		{"quarantine drop", "<id>", "forget it", cmdQuarantineDrop},
		{"recover", "", "rebuild a lost database from the pool; --dry-run only looks", cmdRecover},
		{"pool create", "", "make the thin pool", cmdPoolCreate},
		{"pool status", "", "space and health of the thin pool", cmdPoolStatus},
		{"pool grow", "", "make the pool larger, while it is in use", cmdPoolGrow},
		{"pool repair", "", "detach the pool, check its metadata, and rebuild or enlarge them", cmdPoolRepair},
		{"pool locate", "", "tell where the pool's devices or files are now; they are proved first", cmdPoolLocate},
		{"pool detach", "", "deactivate every device and the pool; the data stays", cmdPoolDetach},
	}
}

func main() { os.Exit(realMain()) }

func realMain() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the second signal ends the program at once
	return report(dispatch(ctx, os.Args[1:], os.Stdout), newPatientLog(os.Stderr))
}

// dispatch finds the command, which may be two words long.
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
			return c.run(ctx, args[1:], out)
		case len(args) > 1 && args[0]+" "+args[1] == c.name:
			return c.run(ctx, args[2:], out)
		}
	}
	return &usageError{fmt.Errorf("unknown command %q: see `consumer --help`", args[0])}
}

// damagedAdvice follows every error about a damaged database, wherever it was noticed.
const damagedAdvice = "consumer: the database, consumer.db in the state directory, is damaged; nothing was written to it. Stop the daemon, move consumer.db, consumer.db-wal\n" +
	"and consumer.db-shm away, and put the newest `consumer backup` there as consumer.db; without one, rebuild it with `consumer recover`."

// report prints the error and chooses the exit code.
func report(err error, w io.Writer) int {
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if errors.Is(err, context.Canceled) {
		fmt.Fprintln(w, "consumer: interrupted")
		return 130
	}
	fmt.Fprintf(w, "consumer: %v\n", err)
	damaged := store.Damaged(err)
	if damaged {
		fmt.Fprintln(w, damagedAdvice)
	}
	var usage *usageError
	switch {
	case errors.As(err, &usage):
		return 2
	case errors.Is(err, errVerify): // whatever could not be looked at besides
		return 6
	case errors.Is(err, errLocked):
		return 4
	case errors.Is(err, devmapper.ErrUnavailable), errors.Is(err, devmapper.ErrForeign),
		errors.Is(err, devmapper.ErrNoSuperblock),
		errors.Is(err, devmapper.ErrHasSuperblock), errors.Is(err, devmapper.ErrReadOnly),
		errors.Is(err, devmapper.ErrDamaged), errors.Is(err, devmapper.ErrUnidentified), errors.Is(err, errNoPool),
		errors.Is(err, errPoolLost), errors.Is(err, reconcile.ErrWrongPool), damaged:
		return 3
	case errors.Is(err, store.ErrNotFound):
		return 5
	case errors.Is(err, errLeftAlone):
		return 7
	}
	return 1
}

func printHelp(w io.Writer) error {
	fmt.Fprint(w, "consumer takes container images from an S3 bucket to active device-mapper snapshots.\n\nUsage: consumer <command> [flags]\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-26s %s\n", c.name+" "+c.args, c.short)
	}
	fmt.Fprint(w, "\nEvery command takes --help, --state-dir, --log-level; those that print take --json.\nSettings by environment; the flag of the same name wins:\n\n")
	if err := printEnvironment(w); err != nil {
		return err
	}
	fmt.Fprint(w, "\nExit codes: 0 success, 1 failure, 2 usage or configuration, 3 machine, pool or database, 4 already running, 5 not found,\n6 an image is not what was sealed, 7 recover left devices of the pool alone, 130 interrupted.\n")
	return nil
}

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

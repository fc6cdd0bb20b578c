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
		{"status", "", "what is queued, running, active and refused", cmdStatus},
		{"images", "", "list the images with their state, device and digest", cmdImages},
		{"snapshots", "", "list the active snapshots", cmdSnapshots},
		{"history", "<key|image>", "show the journal of an image", cmdHistory},
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
		{"submit", "<key>", "enqueue an object by hand, also a removed or refused one", cmdSubmit},
		{"backfill", "", "compare the bucket with the journal and enqueue what is missing", cmdBackfill},
		{"backup", "<file>", "copy the database, also while the daemon runs", cmdBackup},
		{
			"quarantine list", "", "list the messages in quarantine: given up on, and not dead-lettered",
			cmdQuarantineList,
		},
		{"quarantine show", "<id>", "show a message in quarantine, with its body", cmdQuarantineShow},
		{"quarantine requeue", "<id>", "send a message in quarantine to the queue again", cmdQuarantineRequeue},
		{"quarantine drop", "<id>", "drop a message in quarantine", cmdQuarantineDrop},
		{"recover", "", "rebuild a lost database from the pool; --dry-run only looks", cmdRecover},
		{"pool create", "", "make the thin pool", cmdPoolCreate},
		{"pool status", "", "show space and health of the thin pool", cmdPoolStatus},
		{"pool grow", "", "make the pool larger, while it is in use", cmdPoolGrow},
		{"pool repair", "", "detach the pool, check its metadata, and rebuild or enlarge them", cmdPoolRepair},
		{"pool locate", "", "record where the pool's devices or files are now, after proving them", cmdPoolLocate},
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
			return c.run(ctx, args[1:], out)
		case len(args) > 1 && args[0]+" "+args[1] == c.name:
			return c.run(ctx, args[2:], out)
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

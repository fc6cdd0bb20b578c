// Command consumer is the Container Image Manager: it takes container images from an S3
// bucket to active device-mapper snapshots.
//
// `consumer run` is the daemon. The other commands are for the operator beside it.
// exit.go has the exit codes.
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// usageError is a mistake in the command line or the configuration.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

// errLocked is returned when another process works on the state directory.
var errLocked = errors.New("another instance is using the state directory")

func main() { os.Exit(realMain()) }

func realMain() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the second signal ends the program at once
	return report(dispatch(ctx, os.Args[1:], os.Stdout), newPatientLog(os.Stderr))
}

// dispatch runs a command line. What is wrong with it shows before the command begins.
func dispatch(ctx context.Context, args []string, out io.Writer) error {
	root, begun := newProgram(out), false
	root.SetArgs(args)
	root.PersistentPreRun = func(*cobra.Command, []string) { begun = true }
	err := root.ExecuteContext(ctx)
	if err != nil && !begun {
		return &usageError{err}
	}
	return err
}

// newProgram returns the program with all its commands, which print to out.
func newProgram(out io.Writer) *cobra.Command {
	root := newGroup("consumer", "Take container images from an S3 bucket to active device-mapper snapshots")
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetOut(out)
	addCommands(root, "Daemon", runCommand(), statusCommand(), watchCommand(), doctorCommand())
	addCommands(root, "Images", imagesCommand(), showCommand(), snapshotsCommand(), historyCommand(), traceCommand(),
		snapshotCommand(), umountCommand(), verifyCommand(), rmCommand(), submitCommand(), retryCommand(),
		backfillCommand(), checkCommand())
	addCommands(root, "Pool and journal", reconcileCommand(), backupCommand(), recoverCommand(),
		newGroup("pool", "Make the thin pool, and look after it",
			poolCreateCommand(), poolStatusCommand(), poolDevicesCommand(), poolGrowCommand(), poolRepairCommand(),
			poolLocateCommand(), poolDetachCommand()),
		newGroup("quarantine", "Look after the messages that failed for good and were not dead-lettered",
			quarantineListCommand(), quarantineShowCommand(), quarantineRequeueCommand(), quarantineDropCommand()))
	addTo(root, versionCommand(), settingsTopic(), namesTopic(), exitCodesTopic())
	addSettings(root)
	addVersion(root)
	addHelp(root)
	return root
}

// addCommands adds commands under a title.
func addCommands(root *cobra.Command, title string, commands ...*cobra.Command) {
	root.AddGroup(&cobra.Group{ID: title, Title: title + ":"})
	for _, c := range commands {
		c.GroupID = title
	}
	addTo(root, commands...)
}

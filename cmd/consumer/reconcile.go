package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"imagemanager.internal/internal/reconcile"
)

func reconcileCommand() *cobra.Command {
	var dry bool
	cmd := withTable(&cobra.Command{
		Use:   "reconcile",
		Short: "Bring journal, pool and files into agreement; --dry-run shows what would be done",
		Long: `Reconcile compares what the journal, the pool and the files say of each image. It
removes what belongs to nothing, finishes what was cut off, and reports what is
not the program's own. A daemon does the same at its start and every
RECONCILE_INTERVAL, and the command only while none runs.`,
		Example:     "  consumer reconcile --dry-run",
		Annotations: exits(3, 4, 5),
		RunE: withJournal(func(ctx context.Context, c *call) error {
			if dry {
				return showDiff(ctx, c)
			}
			return reconcileNow(ctx, c)
		}),
	})
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only show what would be done; works beside a running daemon")
	return cmd
}

// reconcileNow does what the daemon does at its start and every RECONCILE_INTERVAL.
func reconcileNow(ctx context.Context, c *call) error {
	if err := c.waitLock(ctx, daemonLock, lookPatience); err != nil {
		return fmt.Errorf("%w: a daemon reconciles by itself, every RECONCILE_INTERVAL; --dry-run works beside it", err)
	}
	l, err := c.openBeside(ctx)
	if err != nil {
		return err
	}
	r := l.reconciler(nil)
	diff, err := r.Diff(ctx, true)
	if err != nil {
		return err
	}
	left, err := r.Recover(ctx)
	if err != nil {
		return err
	}
	return errors.Join(c.printDiff(diff), left)
}

// showDiff changes nothing. It works beside a running daemon, and a daemon may start
// meanwhile.
func showDiff(ctx context.Context, c *call) error {
	l, err := c.lookBeside(ctx)
	if err != nil {
		return err
	}
	r := l.reconciler(nil)
	var diff reconcile.Diff
	if c.daemonRunning() {
		diff, err = r.DiffTwice(ctx)
	} else {
		diff, err = r.Diff(ctx, true)
	}
	if err != nil {
		return err
	}
	return c.printDiff(diff)
}

func (o *output) printDiff(diff reconcile.Diff) error {
	if o.asJSON {
		return printJSON(o.out, nonNil(diff.Actions))
	}
	if diff.InHand > 0 {
		fmt.Fprintf(o.out, "not looked at, because the daemon works on them: %d images\n", diff.InHand)
	}
	if len(diff.Actions) == 0 {
		fmt.Fprintln(o.out, "journal, pool and files agree: nothing to do")
		return nil
	}
	t := o.table("DO", "WHAT", "IMAGE", "REASON")
	for _, a := range diff.Actions {
		image := ""
		if a.Image > 0 {
			image = fmt.Sprint(a.Image)
		}
		t.row(string(a.Kind), a.What, dash(image), a.Reason)
	}
	return t.flush()
}

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"

	"imagemanager.internal/internal/reconcile"
)

// cmdReconcile brings journal, pool and files into agreement, as the daemon does at its
// start and every RECONCILE_INTERVAL; or shows what it would do, also beside a running
// daemon.
func cmdReconcile(ctx context.Context, args []string, out io.Writer) error {
	var dry *bool
	more := func(fs *flag.FlagSet) {
		dry = fs.Bool("dry-run", false, "only show what would be done; works beside a running daemon")
	}
	return showMore(ctx, "reconcile", "", args, out, more, func(s *system, _ *flag.FlagSet, asJSON bool) error {
		if !*dry { // a daemon may start beside a mere look
			if err := s.waitLock(ctx, daemonLock, lookPatience); err != nil {
				return fmt.Errorf("%w: a daemon reconciles by itself, every RECONCILE_INTERVAL; --dry-run works "+
					"beside it", err)
			}
		}
		open := s.openBeside
		if *dry {
			open = s.lookBeside
		}
		l, err := open(ctx)
		if err != nil {
			return err
		}
		r := l.reconciler(nil)
		if *dry && s.daemonRunning() {
			diff, err := r.DiffTwice(ctx)
			if err != nil {
				return err
			}
			return printDiff(out, diff, asJSON)
		}
		diff, err := r.Diff(ctx, true)
		var done reconcile.Recovered
		if err == nil && !*dry {
			done, err = r.Recover(ctx)
		}
		if err != nil {
			return err
		}
		return errors.Join(printDiff(out, diff, asJSON), done.Err())
	})
}

func printDiff(out io.Writer, diff reconcile.Diff, asJSON bool) error {
	if asJSON {
		return printJSON(out, nonNil(diff.Actions))
	}
	if diff.InHand > 0 {
		fmt.Fprintf(out, "not looked at, because the daemon works on them: %d images\n", diff.InHand)
	}
	if len(diff.Actions) == 0 {
		fmt.Fprintln(out, "journal, pool and files agree: nothing to do")
		return nil
	}
	t := newTable(out, "DO", "WHAT", "IMAGE", "REASON")
	for _, a := range diff.Actions {
		image := ""
		if a.Image > 0 {
			image = fmt.Sprint(a.Image)
		}
		t.row(string(a.Kind), a.What, dash(image), a.Reason)
	}
	return t.flush()
}

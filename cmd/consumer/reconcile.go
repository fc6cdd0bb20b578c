package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"

	"imagemanager.internal/internal/pipeline"
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
		if !*dry { // a daemon may start beside one that only looks
			if err := s.waitLock(ctx, daemonLock, lookPatience); err != nil {
				return fmt.Errorf("%w: a daemon reconciles by itself, every RECONCILE_INTERVAL; --dry-run works "+
					"beside it", err)
			}
		}
		open := s.openBeside
		if *dry {
			open = s.lookBeside
		}
		p, err := open(ctx)
		if err != nil {
			return err
		}
		if *dry && s.daemonRunning() {
			plan, err := p.PlanTwice(ctx)
			if err != nil {
				return err
			}
			return printPlan(out, plan, asJSON)
		}
		plan, err := p.Plan(ctx, true)
		var done pipeline.Recovered
		if err == nil && !*dry {
			done, err = p.Recover(ctx)
		}
		if err != nil {
			return err
		}
		return errors.Join(printPlan(out, plan, asJSON), done.Err())
	})
}

func printPlan(out io.Writer, plan pipeline.Plan, asJSON bool) error {
	if asJSON {
		return printJSON(out, nonNil(plan.Actions))
	}
	if plan.InHand > 0 {
		fmt.Fprintf(out, "not looked at, because the daemon works on them: %d images\n", plan.InHand)
	}
	if len(plan.Actions) == 0 {
		fmt.Fprintln(out, "journal, pool and files agree: nothing to do")
		return nil
	}
	t := newTable(out, "DO", "WHAT", "IMAGE", "REASON")
	for _, a := range plan.Actions {
		image := ""
		if a.Image > 0 {
			image = fmt.Sprint(a.Image)
		}
		t.row(string(a.Do), a.What, dash(image), a.Reason)
	}
	return t.flush()
}

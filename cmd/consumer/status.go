package main

import (
	"context"
	"flag"
	"fmt"
	"io"

	"imagemanager.internal/internal/store"
)

func cmdStatus(ctx context.Context, args []string, out io.Writer) error {
	return show(ctx, "status", "", args, out, func(s *system, _ *flag.FlagSet, asJSON bool) error {
		counts, err := s.store.Counts(ctx)
		if err != nil {
			return err
		}
		pending, err := s.store.PendingImages(ctx)
		if err != nil {
			return err
		}
		snapshots, err := s.store.Snapshots(ctx)
		if err != nil {
			return err
		}
		running := s.daemonRunning()
		if asJSON {
			return printJSON(out, map[string]any{
				"daemon_running": running, "images": counts,
				"pending": nonNil(pending), "snapshots": len(snapshots),
			})
		}
		daemon := "not running"
		if running {
			daemon = "running"
		}
		fmt.Fprintf(out, "daemon %s; %d active, %d pending, %d rejected, %d violations, %d dead; %d snapshots\n",
			daemon, counts[store.StateActive], counts[store.StatePending], counts[store.StateRejected],
			counts[store.StateViolation],
			counts[store.StateDead], len(snapshots))
		if len(pending) == 0 {
			return nil
		}
		t := newTable(out, "IMAGE", "KEY", "STAGE", "RUNNING", "FAILURES", "SINCE", "REASON")
		for _, img := range pending {
			t.row(fmt.Sprint(img.ID), quoted(img.Key), string(img.Stage), fmt.Sprint(img.Running),
				fmt.Sprint(img.Failures), ago(img.UpdatedAt), oneLine(img.Reason))
		}
		return t.flush()
	})
}

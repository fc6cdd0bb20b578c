package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"imagemanager.internal/internal/store"
)

func statusCommand() *cobra.Command {
	return withTable(&cobra.Command{
		Use:   "status",
		Short: "Show what is queued, running, active and refused",
		Long: `Status counts the images by state, and lists the pending ones with the stage they
are in and the reason of their last failure. It reads the database, beside a
running daemon or without one.`,
		Example:     "  consumer status",
		Annotations: exits(3, 5),
		RunE:        looking(showStatus),
	})
}

func showStatus(ctx context.Context, c *call) error {
	counts, err := c.store.Counts(ctx)
	if err != nil {
		return err
	}
	pending, err := c.store.PendingImages(ctx)
	if err != nil {
		return err
	}
	snapshots, err := c.store.Snapshots(ctx)
	if err != nil {
		return err
	}
	running := c.daemonRunning()
	if c.asJSON {
		return printJSON(c.out, map[string]any{
			"daemon_running": running, "images": counts,
			"pending": nonNil(pending), "snapshots": len(snapshots),
		})
	}
	daemon := "not running"
	if running {
		daemon = "running"
	}
	fmt.Fprintf(c.out, "daemon %s; %d active, %d pending, %d rejected, %d violations, %d dead; %d snapshots\n",
		daemon, counts[store.StateActive], counts[store.StatePending], counts[store.StateRejected],
		counts[store.StateViolation],
		counts[store.StateDead], len(snapshots))
	if len(pending) == 0 {
		return nil
	}
	t := c.table("IMAGE", "KEY", "STAGE", "RUNNING", "FAILURES", "SINCE", "REASON")
	for _, img := range pending {
		t.row(fmt.Sprint(img.ID), quoted(img.Key), string(img.Stage), fmt.Sprint(img.Running),
			fmt.Sprint(img.Failures), ago(img.UpdatedAt), oneLine(img.Reason))
	}
	return t.flush()
}

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"imagemanager.internal/internal/pipeline"
	"imagemanager.internal/internal/store"
)

// waitLook is how long the journal is left alone between two looks at an image.
const waitLook = 200 * time.Millisecond

// How an image may end that somebody waits for.
var (
	errWasRejected = errors.New("was rejected")
	errWasAttack   = errors.New("was refused as an attack")
	errWasGone     = errors.New("has no object any more")
)

// withWait adds --wait to a command that makes requests.
func withWait(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().Bool("wait", false, "wait for the snapshots, and print their paths; progress is on standard error")
	return cmd
}

// await waits until an image has ended, and prints its newest snapshot.
func (c *call) await(ctx context.Context, r pipeline.Request) (err error) {
	if r.Image, err = c.follow(ctx, r.Image.ID); err != nil {
		return err
	}
	if err := ended(r.Image); err != nil {
		return err
	}
	snapshots, err := c.store.SnapshotsOf(ctx, r.Image.ID)
	if err == nil && len(snapshots) == 0 {
		err = fmt.Errorf("image %d is active, and has no snapshot: `consumer snapshot %[1]d` makes one", r.Image.ID)
	}
	if err != nil {
		return err
	}
	newest := snapshots[len(snapshots)-1]
	if c.asJSON {
		return printJSON(c.out, requested{r, &newest})
	}
	_, err = fmt.Fprintln(c.out, newest.Path)
	return err
}

// follow tells the events of an image until it has ended.
func (c *call) follow(ctx context.Context, id int64) (store.Image, error) {
	tick := time.NewTicker(waitLook)
	defer tick.Stop()
	for told := int64(0); ; {
		img, err := c.store.Image(ctx, id) // before its events: they are then all told
		if err == nil {
			told, err = c.tell(ctx, id, told)
		}
		if err == nil && img.State != store.StatePending {
			return img, nil
		}
		if err == nil {
			select {
			case <-tick.C:
				continue
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		if errors.Is(err, context.Canceled) {
			fmt.Fprintf(c.errs, "image %d goes on: `consumer history %d` shows how far it is\n", id, id)
		}
		return img, err
	}
}

// tell prints the events of an image after one, and returns the number of the last. At
// first it begins where the image was taken up last.
func (c *call) tell(ctx context.Context, id, told int64) (int64, error) {
	events, err := c.store.History(ctx, id)
	if err != nil {
		return told, err
	}
	if told == 0 {
		begins := []store.EventKind{store.EventQueued, store.EventReopened, store.EventResubmitted}
		for _, e := range events {
			if slices.Contains(begins, e.Kind) {
				told = e.Seq
			}
		}
	}
	for _, e := range events {
		if e.Seq <= told || e.Kind == store.EventStep {
			continue
		}
		fmt.Fprintf(c.errs, "%s  %-8s  %-8s  %s\n", e.At.Format(logTime), dash(string(e.Stage)), e.Kind, detail(e))
		told = e.Seq
	}
	return told, nil
}

// ended returns the error of an image without a result.
func ended(img store.Image) error {
	how := map[store.State]error{
		store.StateRejected:  errWasRejected,
		store.StateViolation: errWasAttack,
		store.StateVanished:  errWasGone,
	}[img.State]
	switch {
	case img.State == store.StateActive:
		return nil
	case how == nil:
		how = fmt.Errorf("is %s", img.State)
	}
	return fmt.Errorf("image %d (%s) %w: %s", img.ID, quoted(img.Key), how, dash(oneLine(img.Reason)))
}

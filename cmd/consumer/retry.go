package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"imagemanager.internal/internal/pipeline"
	"imagemanager.internal/internal/store"
)

func retryCommand() *cobra.Command {
	return completing(withWait(withJSON(&cobra.Command{
		Use:   "retry <key|image>...",
		Short: "Take images up again that were refused, given up or removed",
		Long: `Retry takes images up again, whatever they are: what was refused is judged again, what
was removed is made again, what was given up is tried again, and what waits is
taken up now. Of several versions of a key it takes the newest. It needs neither
bucket nor queue; the daemon, running or started later, does the work. "consumer
help names" says how else to name an image.`,
		Example: `  consumer retry images/debian.tar
  consumer images -q --latest --state rejected | xargs consumer retry`,
		SuggestFor:  []string{"again", "reopen", "resubmit"},
		Annotations: exits(3, 5, 8, 9),
		RunE:        withJournal(retryImages),
	})), imageKeys, imageIDs)
}

func retryImages(ctx context.Context, c *call) error {
	newest := map[string]store.Image{}
	for _, name := range c.args { // one wrong name, and nothing is done
		images, err := c.find(ctx, name)
		if err != nil {
			return err
		}
		newest[name] = images[len(images)-1]
	}
	return c.request(ctx, func(name string) (pipeline.Request, error) {
		return pipeline.Retry(ctx, c.store, newest[name])
	})
}

// requested is what became of a request. docs/json.md describes it.
type requested struct {
	pipeline.Request
	Snapshot *store.Snapshot `json:"snapshot,omitempty"`
}

// request makes a request for every argument, and then says what became of each, or waits
// for it.
func (c *call) request(ctx context.Context, request func(name string) (pipeline.Request, error)) error {
	var all []pipeline.Request
	var errs []error
	for _, name := range c.args {
		r, err := request(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, r)
	}
	for _, r := range all {
		errs = append(errs, c.answer(ctx, r))
	}
	return errors.Join(errs...)
}

// answer says what became of a request. With --wait that is the snapshot.
func (c *call) answer(ctx context.Context, r pipeline.Request) error {
	if c.wait {
		fmt.Fprintln(c.errs, c.became(r))
		return c.await(ctx, r)
	}
	if c.asJSON {
		return printJSON(c.out, requested{Request: r})
	}
	_, err := fmt.Fprintln(c.out, c.became(r))
	return err
}

// became says in words what became of a request.
func (c *call) became(r pipeline.Request) string {
	when := ""
	if !c.daemonRunning() {
		when = ", once a daemon runs"
	}
	image := fmt.Sprintf("image %d (%s) ", r.Image.ID, quoted(r.Image.Key))
	switch {
	case r.Was == "":
		return image + "is new: it is taken up" + when
	case r.Was == store.StateActive:
		return image + "is active: nothing to do"
	case !r.Changed:
		return image + "is being worked on"
	case r.Was == store.StatePending && when != "":
		return image + "waits for a daemon to run"
	case r.Was == store.StatePending:
		return image + "was waiting: it is taken up now"
	}
	was := string(r.Was)
	if r.Was == store.StateViolation {
		was = "refused as an attack"
	}
	return image + "was " + was + ": it is taken up again" + when
}

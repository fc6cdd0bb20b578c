package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"imagemanager.internal/internal/store"
)

func historyCommand() *cobra.Command {
	var f filter
	cmd := completing(withListing(&cobra.Command{
		Use:   "history <key|image>",
		Short: "Show the journal of an image",
		Long: `History prints what the journal has on an image: every attempt at every stage, every
verdict with its reason, every device. With a key it is the history of all
versions of the object. Nothing is shortened. Times are UTC. "consumer help names"
says how else to name an image.`,
		Example: `  consumer history images/debian.tar
  consumer history --latest images/debian.tar
  consumer history 17 -n 5`,
		SuggestFor:  []string{"log", "logs", "events"},
		Annotations: exits(3, 5),
		RunE:        looking(func(ctx context.Context, c *call) error { return showHistory(ctx, c, f) }),
	}, "numbers of events"), imageKeys, imageIDs)
	cmd.Flags().BoolVar(&f.latest, "latest", false, "only the newest version of the key")
	f.addTo(cmd)
	return cmd
}

func showHistory(ctx context.Context, c *call, f filter) error {
	images, err := c.find(ctx, c.arg())
	if err != nil {
		return err
	}
	if f.latest {
		images = images[len(images)-1:]
	}
	var all []store.Event
	for _, img := range images {
		events, err := c.store.History(ctx, img.ID)
		if err != nil {
			return err
		}
		all = append(all, events...)
	}
	return c.printEvents(pick(filter{last: f.last}, all, func(store.Event) (string, string) { return "", "" }))
}

func (o *output) printEvents(events []store.Event) error {
	switch {
	case o.asJSON:
		return printJSON(o.out, events)
	case o.quiet:
		return printIDs(o.out, events, func(e store.Event) string { return fmt.Sprint(e.Seq) })
	}
	t := o.table("SEQ", "TIME", "IMAGE", "ATTEMPT", "STAGE", "EVENT", "DETAIL").wideOnly("ATTEMPT")
	t.room = 0 // what to do about a refusal is at the end of its reason
	for _, e := range events {
		t.row(fmt.Sprint(e.Seq), e.At.Format(logTime), fmt.Sprint(e.Image), fmt.Sprint(e.Attempt),
			dash(string(e.Stage)), string(e.Kind), detail(e))
	}
	return t.flush()
}

// detail says in a few words what an event changed.
func detail(e store.Event) string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if e.Verdict != "" {
		add("%s:", e.Verdict)
	}
	if e.Reason != "" {
		add("%s", oneLine(e.Reason))
	}
	if o := e.Detail.Object; o != nil {
		add("s3://%s/%s version %s", o.Bucket, strings.Trim(quoted(o.Key), `"`), o.Version())
	}
	if e.Detail.TraceID != "" {
		add("trace %s", e.Detail.TraceID)
	}
	if b := e.Detail.Blob; b != nil {
		add("%s, sha256 %s", units.BytesSize(float64(b.Size)), short(b.SHA256))
	}
	if d := e.Detail.Device; d != nil {
		add("device %d %s", d.ID, d.State)
	}
	if tr := e.Detail.Tree; tr != nil {
		add("%d entries, tree %s", tr.Entries, short(strings.TrimPrefix(tr.Digest, "sha256:")))
	}
	if sn := e.Detail.Snapshot; sn != nil {
		add("%s", sn.Path)
	}
	return strings.Join(parts, " ")
}

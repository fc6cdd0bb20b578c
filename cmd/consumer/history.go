package main

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"imagemanager.internal/internal/store"
)

func historyCommand() *cobra.Command {
	var f filter
	var follow bool
	cmd := completing(withListing(&cobra.Command{
		Use:   "history <key|image>",
		Short: "Show the journal of an image",
		Long: `History prints what the journal has on an image: every attempt at every stage, every
verdict with its reason, every device. With a key it is the history of all
versions of the object. Nothing is shortened. Times are UTC. FAILURES counts the
failed attempts since the last stage that was done. With --follow it goes on with
new events, and versions, until Ctrl-C, which is its normal end; JSON is then an
object a line. "consumer help names" says how else to name an image.`,
		Example: `  consumer history images/debian.tar
  consumer history --latest images/debian.tar
  consumer history 17 -n 5
  consumer history -f debian.tar`,
		SuggestFor:  []string{"log", "logs", "events"},
		Annotations: exits(3, 5),
		RunE:        looking(func(ctx context.Context, c *call) error { return showHistory(ctx, c, f, follow) }),
	}, "numbers of events"), imageKeys, imageIDs)
	cmd.Flags().BoolVar(&f.latest, "latest", false, "only the newest version of the key")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with new events as they come")
	f.addTo(cmd)
	return cmd
}

func showHistory(ctx context.Context, c *call, f filter, follow bool) error {
	images, err := c.find(ctx, c.arg())
	if err != nil {
		return err
	}
	if f.latest {
		images = images[len(images)-1:]
	}
	p, s := c.eventPrinter(follow), &eventStream{store: c.store}
	var all []countedEvent
	for _, img := range images {
		events, err := c.store.History(ctx, img.ID)
		if err != nil {
			return err
		}
		counted, err := p.count(ctx, c.store, events)
		if err != nil {
			return err
		}
		all = append(all, counted...)
		s.seq = max(s.seq, events[len(events)-1].Seq)
	}
	all = pick(filter{last: f.last}, all, func(countedEvent) (string, string) { return "", "" })
	if err := p.print(all); err != nil || !follow {
		return err
	}
	s.want = ofImages(images, c.arg())
	return s.follow(ctx, p)
}

// ofImages picks the events of images. If they were named by a key, those of its later
// versions are picked as well.
func ofImages(images []store.Image, name string) func(store.Event) bool {
	wanted, object := map[int64]bool{}, images[0].Object
	for _, img := range images {
		wanted[img.ID] = true
	}
	_, notID := strconv.ParseInt(name, 10, 64)
	return func(e store.Event) bool {
		if o := e.Detail.Object; o != nil && notID != nil && o.Bucket == object.Bucket && o.Key == object.Key {
			wanted[e.Image] = true
		}
		return wanted[e.Image]
	}
}

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"imagemanager.internal/internal/store"
)

func imagesCommand() *cobra.Command {
	var f filter
	cmd := withListing(&cobra.Command{
		Use:   "images",
		Short: "List the images with their state, size and reason",
		Long: `Images lists the images of the journal, oldest first: one for each version of an
object. An image that was refused or given up has its reason.`,
		Example: `  consumer images
  consumer images --state rejected,violation,dead --no-trunc
  consumer images --latest --key debian -o wide
  consumer rm $(consumer images -q --state superseded)`,
		SuggestFor:  []string{"list", "ls"},
		Annotations: exits(3, 5),
		RunE:        looking(func(ctx context.Context, c *call) error { return listImages(ctx, c, f) }),
	}, "ids")
	addStates(&f, cmd, store.States())
	f.addKeys(cmd)
	f.addTo(cmd)
	return cmd
}

func listImages(ctx context.Context, c *call, f filter) error {
	images, err := c.store.Images(ctx)
	if err != nil {
		return err
	}
	images = pick(f, images, func(img store.Image) (string, string) { return img.Key, string(img.State) })
	switch {
	case c.asJSON:
		return printJSON(c.out, images)
	case c.quiet:
		return printIDs(c.out, images, func(img store.Image) string { return fmt.Sprint(img.ID) })
	}
	t := c.table("IMAGE", "KEY", "STATE", "STAGE", "SIZE", "ENTRIES", "DEVICE", "FAILURES", "SHA256", "TREE", "UPDATED",
		"REASON").wideOnly("ENTRIES", "DEVICE", "FAILURES", "SHA256", "TREE")
	for _, img := range images {
		size, sum, device, entries, tree := "-", "-", "-", "-", "-"
		if img.Blob != nil {
			size, sum = units.BytesSize(float64(img.Blob.Size)), short(img.Blob.SHA256)
		}
		if img.Tree != nil {
			device, entries, tree = fmt.Sprint(img.Tree.Device), fmt.Sprint(img.Tree.Entries),
				short(strings.TrimPrefix(img.Tree.Digest, "sha256:"))
		}
		t.row(fmt.Sprint(img.ID), quoted(img.Key), string(img.State), dash(string(img.Stage)), size, entries,
			device, fmt.Sprint(img.Failures), sum, tree, ago(img.UpdatedAt), oneLine(img.Reason))
	}
	return t.flush()
}

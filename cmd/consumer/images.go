package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
)

func imagesCommand() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "images",
		Short: "List the images with their state, device and digest",
		Long: `Images lists every image of the journal, oldest first: one for each version of an
object. An image that was refused or given up has its reason.`,
		Example:     "  consumer images",
		SuggestFor:  []string{"list", "ls"},
		Annotations: exits(3, 5),
		RunE:        withJournal(listImages),
	})
}

func listImages(ctx context.Context, c *call) error {
	images, err := c.store.Images(ctx)
	if err != nil {
		return err
	}
	if c.asJSON {
		return printJSON(c.out, nonNil(images))
	}
	t := newTable(c.out, "IMAGE", "KEY", "STATE", "STAGE", "SIZE", "ENTRIES", "DEVICE", "SHA256", "TREE", "UPDATED",
		"REASON")
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
			device, sum, tree, ago(img.UpdatedAt), oneLine(img.Reason))
	}
	return t.flush()
}

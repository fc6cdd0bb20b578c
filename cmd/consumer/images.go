package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/docker/go-units"
)

func cmdImages(ctx context.Context, args []string, out io.Writer) error {
	return show(ctx, "images", "", args, out, func(s *system, _ *flag.FlagSet, asJSON bool) error {
		images, err := s.store.Images(ctx)
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(out, nonNil(images))
		}
		t := newTable(out, "IMAGE", "KEY", "STATE", "STAGE", "SIZE", "ENTRIES", "DEVICE", "SHA256", "TREE", "UPDATED",
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
	})
}

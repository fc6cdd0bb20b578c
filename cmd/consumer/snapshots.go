package main

import (
	"context"
	"flag"
	"fmt"
	"io"

	"imagemanager.internal/internal/store"
)

func cmdSnapshots(ctx context.Context, args []string, out io.Writer) error {
	return show(ctx, "snapshots", "", args, out, func(s *system, _ *flag.FlagSet, asJSON bool) error {
		list, err := s.store.Snapshots(ctx)
		if err != nil {
			return err
		}
		return printSnapshots(out, list, asJSON)
	})
}

func printSnapshots(out io.Writer, list []store.Snapshot, asJSON bool) error {
	if asJSON {
		return printJSON(out, nonNil(list))
	}
	t := newTable(out, "DEVICE", "IMAGE", "KEY", "STATE", "PATH", "CREATED")
	for _, sn := range list {
		t.row(fmt.Sprint(sn.Device), fmt.Sprint(sn.Image), quoted(sn.Key), sn.State, sn.Path, ago(sn.CreatedAt))
	}
	return t.flush()
}

// cmdSnapshot makes a further snapshot, beside a running daemon or without one.
func cmdSnapshot(ctx context.Context, args []string, out io.Writer) error {
	return show(ctx, "snapshot", "<key|image>", args, out, func(s *system, fs *flag.FlagSet, asJSON bool) error {
		image, err := s.findActive(ctx, fs)
		if err != nil {
			return err
		}
		l, err := s.openBeside(ctx)
		if err != nil {
			return err
		}
		sn, err := l.host.Snapshot(ctx, image)
		if err != nil {
			return err
		}
		return printSnapshots(out, []store.Snapshot{sn}, asJSON)
	})
}

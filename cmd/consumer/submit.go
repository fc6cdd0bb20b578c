package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"

	"github.com/docker/go-units"

	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/pipeline"
	"imagemanager.internal/internal/store"
)

// openSubmitter wires what reads the bucket and writes the journal: neither a pool nor a
// queue.
func (s *system) openSubmitter(ctx context.Context) (*pipeline.Submitter, error) {
	if err := errors.Join(append(s.cfg.checkBucket(), s.cfg.checkPlaces()...)...); err != nil {
		return nil, &usageError{err}
	}
	s3c, _, err := s.clients(ctx)
	if err != nil {
		return nil, err
	}
	return &pipeline.Submitter{
		Store: s.store, Bucket: download.NewBucket(download.NewRegional(s3c), s.cfg.Bucket, s.cfg.Prefix),
		Name: s.cfg.Bucket, Prefix: s.cfg.Prefix,
		Rules: s.cfg.provision().Rules,
	}, nil
}

// cmdSubmit puts one object into the journal. The daemon, running or started later, takes
// it up.
func cmdSubmit(ctx context.Context, args []string, out io.Writer) error {
	return show(ctx, "submit", "<key>", args, out, func(s *system, fs *flag.FlagSet, asJSON bool) error {
		if fs.NArg() != 1 {
			return &usageError{errors.New("submit takes one key")}
		}
		sub, err := s.openSubmitter(ctx)
		if err != nil {
			return err
		}
		img, created, err := sub.Resubmit(ctx, fs.Arg(0))
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(out, map[string]any{"created": created, "image": img})
		}
		note := "; it was in the journal already"
		if created {
			note = ""
		}
		fmt.Fprintf(out, "image %d is %s%s\n", img.ID, img.State, note)
		return nil
	})
}

// cmdBackfill enqueues every object of the bucket missing in the journal.
func cmdBackfill(ctx context.Context, args []string, out io.Writer) (err error) {
	fs := flags("backfill", "", out)
	asJSON := jsonFlag(fs)
	dry := fs.Bool("dry-run", false, "only list what is missing")
	s, err := openCommand(ctx, fs, args, store.OpenExisting)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := noArgs(fs); err != nil {
		return err
	}
	sub, err := s.openSubmitter(ctx)
	if err != nil {
		return err
	}
	missing := []store.Object{}
	report := func(o store.Object) { missing = append(missing, o) }
	if !*dry {
		report = nil
	}
	b, err := sub.Backfill(ctx, report)
	if err != nil {
		return err
	}
	if *asJSON {
		return printJSON(out, map[string]any{"backfill": b, "dry_run": *dry, "missing": missing})
	}
	verb := "enqueued"
	if *dry {
		verb = "missing"
		t := newTable(out, "MISSING", "SIZE", "ETAG")
		for _, o := range missing {
			t.row(quoted(o.Key), units.BytesSize(float64(o.Size)), o.ETag)
		}
		if err := t.flush(); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "%d objects listed, %d %s\n", b.Listed, b.Enqueued, verb)
	return nil
}

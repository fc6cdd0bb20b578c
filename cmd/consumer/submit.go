package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

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

func submitCommand() *cobra.Command {
	return completing(withWait(withJSON(withSettings(&cobra.Command{
		Use:   "submit <key>...",
		Short: "Enqueue objects by hand, also removed or refused ones",
		Long: `Submit puts objects of S3_BUCKET into the journal, as if messages had announced
them. The daemon, running or started later, takes them up. An image that ended
without a snapshot, or was removed, is opened again. "consumer help names" says how
else to name one that the journal has.`,
		Example: `  consumer submit images/debian.tar
  mount "$(consumer submit --wait images/debian.tar)" /mnt`,
		SuggestFor:  []string{"add", "enqueue"},
		Annotations: exits(3, 5, 8, 9),
		RunE:        withJournal(submit),
	}, "bucket", "region", "endpoint-url"))), imageKeys)
}

// errNoObject is returned when there is nothing to submit.
var errNoObject = errors.New("the bucket has no such object: `aws s3 ls` shows what there is")

// submit puts objects into the journal. The daemon, running or started later, takes them
// up.
func submit(ctx context.Context, c *call) error {
	sub, err := c.openSubmitter(ctx)
	if err != nil {
		return err
	}
	return c.request(ctx, func(name string) (pipeline.Request, error) {
		key, err := c.objectKey(ctx, name)
		if err != nil {
			return pipeline.Request{}, err
		}
		r, err := sub.Resubmit(ctx, key)
		if errors.Is(err, download.ErrGone) {
			err = fmt.Errorf("s3://%s/%s: %w", c.cfg.Bucket, key, errNoObject)
		}
		return r, err
	})
}

func backfillCommand() *cobra.Command {
	var dry bool
	cmd := withListing(withSettings(&cobra.Command{
		Use:   "backfill",
		Short: "Compare the bucket with the journal and enqueue what is missing",
		Long: `Backfill lists the objects of S3_BUCKET under S3_PREFIX, and enqueues those that the
journal does not have: objects older than the notification, or whose message was
lost.`,
		Example: `  consumer backfill --dry-run
  consumer backfill`,
		Annotations: exits(3, 5),
		RunE:        withJournal(func(ctx context.Context, c *call) error { return backfill(ctx, c, dry) }),
	}, "bucket", "region", "endpoint-url"), "the keys of --dry-run")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only list what is missing")
	return cmd
}

// backfill enqueues every object of the bucket missing in the journal.
func backfill(ctx context.Context, c *call, dry bool) error {
	sub, err := c.openSubmitter(ctx)
	if err != nil {
		return err
	}
	missing := []store.Object{}
	report := func(o store.Object) { missing = append(missing, o) }
	if !dry {
		report = nil
	}
	b, err := sub.Backfill(ctx, report)
	if err != nil {
		return err
	}
	if c.quiet {
		return printIDs(c.out, missing, func(o store.Object) string { return o.Key })
	}
	if c.asJSON {
		return printJSON(c.out, map[string]any{"backfill": b, "dry_run": dry, "missing": missing})
	}
	verb := "enqueued"
	if dry {
		verb = "missing"
		t := c.table("MISSING", "SIZE", "ETAG")
		for _, o := range missing {
			t.row(quoted(o.Key), units.BytesSize(float64(o.Size)), o.ETag)
		}
		if err := t.flush(); err != nil {
			return err
		}
	}
	fmt.Fprintf(c.out, "%d objects listed, %d %s\n", b.Listed, b.Enqueued, verb)
	return nil
}

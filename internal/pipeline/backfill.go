package pipeline

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"imagemanager.internal/internal/awserr"
	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/store"
)

// backfillLoop compares the bucket with the journal: at the start, and at the interval,
// as configured.
func (p *Pipeline) backfillLoop(ctx context.Context) {
	if !p.cfg.BackfillAtStart && p.cfg.BackfillEvery > 0 {
		wait(ctx, p.cfg.BackfillEvery)
	}
	for (p.cfg.BackfillAtStart || p.cfg.BackfillEvery > 0) && ctx.Err() == nil {
		b, err := p.submitter.Backfill(ctx, nil)
		switch {
		case err == nil:
			p.log.Info().Int("listed", b.Listed).Int("enqueued", b.Enqueued).Msg("backfill complete")
		case ctx.Err() == nil:
			p.log.Error().Err(err).Str("class", string(awserr.Classify(err))).
				Msg("backfill failed; the next one continues where it stopped")
		}
		if p.cfg.BackfillEvery <= 0 {
			return
		}
		wait(ctx, p.cfg.BackfillEvery)
	}
}

// Submitter puts objects into the journal without a notification. It needs neither pool
// nor queue.
type Submitter struct {
	Store        *store.Store
	Bucket       *download.Bucket
	Name, Prefix string                  // of the bucket
	Rules        func(key string) string // what a refusal of the key would rest on now
}

// Backfill lists the bucket and puts every missing object into the journal: objects from
// before the notification was configured, and those with a lost event. It is safe beside
// live events: they find the same image. It continues at the page where the last one was
// interrupted. With a report it changes nothing and reports what is
// missing, from the first page on.
func (s *Submitter) Backfill(ctx context.Context, report func(store.Object)) (store.Backfill, error) {
	b, err := s.Store.Backfill(ctx)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return b, err
	}
	first := store.Backfill{Bucket: s.Name, Prefix: s.Prefix, StartedAt: time.Now()}
	if err != nil || report != nil || b.Token == "" || b.Bucket != s.Name || b.Prefix != s.Prefix {
		b = first
	}
	for goesOn := b.Token; ; {
		page, next, err := s.Bucket.Page(ctx, b.Token)
		if errors.Is(err, download.ErrToken) && b.Token == goesOn { // the bucket was made afresh, say
			b, goesOn = first, ""
			continue
		}
		if err != nil {
			return b, fmt.Errorf("list s3://%s/%s: %w", b.Bucket, b.Prefix, err)
		}
		for _, o := range page {
			n, err := s.fill(ctx, o, report)
			if err != nil {
				return b, err
			}
			b.Enqueued += n
		}
		b.Listed, b.Token = b.Listed+len(page), next
		if report == nil {
			err = s.Store.SetBackfill(ctx, b)
		}
		if err != nil || next == "" {
			return b, err
		}
	}
}

// fill puts one listed object into the journal unless it is there, or reports it, and
// returns how many it put. A listing has no version ids, unlike the events of a
// versioned bucket: the object is asked for its own before it becomes an image.
func (s *Submitter) fill(ctx context.Context, o download.Object, report func(store.Object)) (int, error) {
	if strings.HasSuffix(o.Key, "/") { // a directory marker
		return 0, nil
	}
	if known, err := s.known(ctx, o); err != nil || known {
		return 0, err
	}
	if report != nil {
		report(store.Object{Bucket: o.Bucket, Key: o.Key, ETag: o.ETag, Size: o.Size})
		return 1, nil
	}
	_, created, err := s.Submit(ctx, o.Key)
	// deleted since it was listed, or never to be taken
	if errors.Is(err, download.ErrGone) || errors.Is(err, download.ErrKey) {
		return 0, nil
	}
	if err != nil || !created {
		return 0, err
	}
	return 1, nil
}

// known reports whether the journal has the object listed, and there is nothing to do
// about it. An image given up is left to an operator: a listing would try it again
// forever.
func (s *Submitter) known(ctx context.Context, o download.Object) (bool, error) {
	images, err := s.Store.ByETag(ctx, o.Bucket, o.Key, o.ETag)
	for _, img := range images {
		if img.State == store.StateDead || reopenReason(img, s.Rules) == "" {
			return true, nil
		}
	}
	return false, err
}

// submitNewest puts the successor of an image's object into the journal, before the image
// is recorded as superseded.
func (s *Submitter) submitNewest(ctx context.Context, img store.Image) error {
	newest, _, err := s.Submit(ctx, img.Key)
	switch {
	case errors.Is(err, download.ErrGone): // replaced, and then deleted
		return nil
	case err != nil:
		return err
	case newest.ID == img.ID:
		return fmt.Errorf("%w, yet it is what the key holds", download.ErrChanged)
	}
	return nil
}

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/docker/go-units"

	"imagemanager.internal/internal/store"
)

// followPause is how long a command that follows the journal waits before it looks again.
const followPause = 250 * time.Millisecond

// countedEvent is an event with the image's failed attempts in a row, itself included.
type countedEvent struct {
	store.Event
	failures int
}

// eventPrinter prints events in several portions.
type eventPrinter struct {
	*output
	stream bool // more may come: JSON has no list around it
	table  *table
	folds  map[int64]store.Progress // of the images seen, at their last event
}

func (o *output) eventPrinter(stream bool) *eventPrinter {
	t := o.table("SEQ", "TIME", "IMAGE", "STAGE", "EVENT", "FAILURES", "DETAIL")
	t.room = 0 // what to do about a refusal is at the end of its reason
	return &eventPrinter{output: o, stream: stream, table: t, folds: map[int64]store.Progress{}}
}

// count counts the failures up to each event. The events of an image come in order, the
// first time all from its first or its later ones.
func (p *eventPrinter) count(ctx context.Context, st *store.Store, events []store.Event) ([]countedEvent, error) {
	counted := make([]countedEvent, 0, len(events))
	for _, e := range events {
		before, known := p.folds[e.Image]
		if !known && e.Kind != store.EventQueued {
			var err error
			if before, err = foldBefore(ctx, st, e); err != nil {
				return nil, err
			}
		}
		after, _ := store.Fold(before, e) // a journal that does not fold is worth a look, too
		p.folds[e.Image] = after
		counted = append(counted, countedEvent{e, after.Failures})
	}
	return counted, nil
}

// foldBefore is where an image stood before an event.
func foldBefore(ctx context.Context, st *store.Store, e store.Event) (store.Progress, error) {
	events, err := st.History(ctx, e.Image)
	if err != nil {
		return store.Progress{}, err
	}
	for i, other := range events {
		if other.Seq >= e.Seq {
			events = events[:i]
			break
		}
	}
	before, _ := store.Fold(store.Progress{}, events...)
	return before, nil
}

// print prints a portion.
func (p *eventPrinter) print(events []countedEvent) error {
	switch {
	case p.asJSON && p.stream:
		return p.printLines(events)
	case p.asJSON:
		list := make([]store.Event, 0, len(events))
		for _, e := range events {
			list = append(list, e.Event)
		}
		return printJSON(p.out, list)
	case p.quiet:
		return printIDs(p.out, events, func(e countedEvent) string { return fmt.Sprint(e.Seq) })
	}
	for _, e := range events {
		p.table.row(fmt.Sprint(e.Seq), e.At.Format(logTime), fmt.Sprint(e.Image), dash(string(e.Stage)),
			string(e.Kind), fmt.Sprint(e.failures), detail(e.Event))
	}
	return p.table.flush()
}

func (p *eventPrinter) printLines(events []countedEvent) error {
	for _, e := range events {
		if err := json.NewEncoder(p.out).Encode(e.Event); err != nil {
			return err
		}
	}
	return nil
}

// eventStream reads the journal as it grows.
type eventStream struct {
	store *store.Store
	seq   int64                  // of the last event that was read
	want  func(store.Event) bool // picks events
}

// next returns the events since the last call.
func (s *eventStream) next(ctx context.Context) ([]store.Event, error) {
	var picked []store.Event
	for {
		events, err := s.store.Since(ctx, s.seq)
		if err != nil || len(events) == 0 {
			return picked, err
		}
		for _, e := range events {
			if s.seq = e.Seq; s.want(e) {
				picked = append(picked, e)
			}
		}
	}
}

// follow prints events as they come until ctx ends.
func (s *eventStream) follow(ctx context.Context, p *eventPrinter) error {
	return repeat(ctx, followPause, func(ctx context.Context) error { return s.printNext(ctx, p) })
}

func (s *eventStream) printNext(ctx context.Context, p *eventPrinter) error {
	events, err := s.next(ctx)
	if err != nil || len(events) == 0 {
		return err
	}
	counted, err := p.count(ctx, s.store, events)
	if err != nil {
		return err
	}
	return p.print(counted)
}

// repeat does something again and again until ctx ends, which is no error.
func repeat(ctx context.Context, pause time.Duration, do func(context.Context) error) error {
	again := time.NewTicker(pause)
	defer again.Stop()
	for {
		err := do(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
		}
	}
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

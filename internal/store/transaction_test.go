package store

import (
	"context"
	"errors"
	"os"
	"testing"
)

// A context that ends in a transaction ends it too, and the connection is as good as new.
func TestCancelledTransaction(t *testing.T) {
	s := newStore(t)
	img, _, err := s.Enqueue(t.Context(), object(1))
	if err != nil {
		t.Fatal(err)
	}
	begun := Event{Image: img.ID, At: s.now(), Kind: EventBegun, Stage: StageDownload}
	for name, between := range map[string]func(context.Context, transaction) error{
		"two statements": func(ctx context.Context, tx transaction) error {
			_, err := record(ctx, tx, begun)
			return err
		},
		"a statement and the commit": func(context.Context, transaction) error { return nil },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		err := s.inTx(ctx, func(tx transaction) error {
			if _, err := record(ctx, tx, begun); err != nil {
				return err
			}
			cancel()
			return between(ctx, tx)
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("between %s: error = %v, want that of the context", name, err)
		}
	}
	if events := must[[]Event](t)(s.History(t.Context(), img.ID)); len(events) != 1 {
		t.Errorf("%d events, want the first alone", len(events))
	}
	if a := must[Attempt](t)(s.Begin(t.Context(), img.ID, StageDownload)); a.N != 1 {
		t.Errorf("attempt %d, want 1", a.N)
	}
}

// Each page of a transaction is written to the log, so an event touches no index whose
// columns stay as they are.
func TestPagesOfAnAttempt(t *testing.T) {
	s, ctx := newStore(t), t.Context()
	img := run(t, s, object(1))
	log := func() int64 {
		info, err := os.Stat(s.path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		return info.Size() / (24 + 4096)
	}
	before := log()
	must[Attempt](t)(s.Begin(ctx, img.ID, StageActivate))
	// The event, its index, the sequence of its table, and the image.
	if pages := log() - before; pages != 4 {
		t.Errorf("the beginning of an attempt writes %d pages, want 4", pages)
	}
}

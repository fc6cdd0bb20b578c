package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

const (
	backfillSelect = `SELECT bucket, prefix, token, listed, enqueued, started_at, updated_at FROM backfill`
	backfillUpsert = `INSERT INTO backfill (one, bucket, prefix, token, listed, enqueued, started_at, updated_at)
		VALUES (1, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (one) DO UPDATE SET bucket = excluded.bucket, prefix = excluded.prefix, token = excluded.token,
		listed = excluded.listed, enqueued = excluded.enqueued, started_at = excluded.started_at,
		updated_at = excluded.updated_at`
)

// Backfill is the progress of a comparison of the bucket with the journal.
type Backfill struct {
	Bucket    string    `json:"bucket"`
	Prefix    string    `json:"prefix"`
	Token     string    `json:"-"` // of the next page; "" when the listing is complete
	Listed    int       `json:"listed"`
	Enqueued  int       `json:"enqueued"`
	StartedAt time.Time `json:"started_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// Backfill returns the newest backfill's progress, or ErrNotFound if there was none.
func (s *Store) Backfill(ctx context.Context) (Backfill, error) {
	var b Backfill
	var started, updated int64
	err := s.readDB.QueryRowContext(ctx, backfillSelect).
		Scan(&b.Bucket, &b.Prefix, &b.Token, &b.Listed, &b.Enqueued, &started, &updated)
	if errors.Is(err, sql.ErrNoRows) {
		return b, fmt.Errorf("backfill: %w", ErrNotFound)
	}
	if err != nil {
		return b, fmt.Errorf("read backfill: %w", err)
	}
	b.StartedAt, b.UpdatedAt = fromUnixNano(started), fromUnixNano(updated)
	return b, nil
}

// SetBackfill records the progress after a page of the listing, once all its missing
// objects are enqueued.
func (s *Store) SetBackfill(ctx context.Context, b Backfill) error {
	return s.inTx(ctx, func(tx transaction) error {
		_, err := tx.ExecContext(ctx, backfillUpsert, b.Bucket, b.Prefix, b.Token, b.Listed, b.Enqueued,
			unixNano(b.StartedAt), s.now().UnixNano())
		if err != nil {
			return fmt.Errorf("record backfill: %w", err)
		}
		return nil
	})
}

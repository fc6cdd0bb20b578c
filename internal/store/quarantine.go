package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

const (
	quarantineColumns = `id, message_id, body, reason, attempts, sent_at, created_at`
	quarantineAll     = `SELECT ` + quarantineColumns + ` FROM quarantine ORDER BY id`
	quarantineOne     = `SELECT ` + quarantineColumns + ` FROM quarantine WHERE id = ?`
	quarantineInsert  = `INSERT INTO quarantine (message_id, body, reason, attempts, sent_at, created_at) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (message_id) DO UPDATE SET reason = excluded.reason, attempts = excluded.attempts`
	quarantineDelete = `DELETE FROM quarantine WHERE id = ?`
)

// Quarantined is a message that could not be acted on, kept until an operator decides.
type Quarantined struct {
	ID        int64     `json:"id"`
	MessageID string    `json:"message_id"`
	Body      string    `json:"body"`
	Reason    string    `json:"reason"`
	Attempts  int       `json:"attempts"`
	SentAt    time.Time `json:"sent_at"` // zero: unknown
	CreatedAt time.Time `json:"created_at"`
}

// Quarantine keeps a message, durably. The same message again, by MessageID, is the same
// row.
func (s *Store) Quarantine(ctx context.Context, q Quarantined) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, quarantineInsert, q.MessageID, q.Body, q.Reason, q.Attempts, unixNano(q.SentAt),
			s.now().UnixNano())
		if err != nil {
			return fmt.Errorf("quarantine message %s: %w", q.MessageID, err)
		}
		return nil
	})
}

// QuarantinedAll returns every message in quarantine, oldest first.
func (s *Store) QuarantinedAll(ctx context.Context) ([]Quarantined, error) {
	rows, err := s.read.QueryContext(ctx, quarantineAll)
	if err != nil {
		return nil, fmt.Errorf("read quarantine: %w", err)
	}
	defer rows.Close()
	var list []Quarantined
	for rows.Next() {
		q, err := scanQuarantined(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, q)
	}
	return list, rows.Err()
}

// Quarantined returns one message of the quarantine, or ErrNotFound.
func (s *Store) Quarantined(ctx context.Context, id int64) (Quarantined, error) {
	q, err := scanQuarantined(s.read.QueryRowContext(ctx, quarantineOne, id))
	if errors.Is(err, sql.ErrNoRows) {
		return q, fmt.Errorf("quarantined message %d: %w", id, ErrNotFound)
	}
	return q, err
}

// DropQuarantined forgets a message of the quarantine, or answers ErrNotFound.
func (s *Store) DropQuarantined(ctx context.Context, id int64) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, quarantineDelete, id)
		if err != nil {
			return fmt.Errorf("drop quarantined message %d: %w", id, err)
		}
		if n, err := res.RowsAffected(); err != nil || n != 1 {
			return errors.Join(fmt.Errorf("quarantined message %d: %w", id, ErrNotFound), err)
		}
		return nil
	})
}

func scanQuarantined(row scanner) (Quarantined, error) {
	var q Quarantined
	var sent, created int64
	if err := row.Scan(&q.ID, &q.MessageID, &q.Body, &q.Reason, &q.Attempts, &sent, &created); err != nil {
		return q, fmt.Errorf("read quarantined message: %w", err)
	}
	q.SentAt, q.CreatedAt = fromUnixNano(sent), fromUnixNano(created)
	return q, nil
}

// unixNano is 0 for a time that is not known.
func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromUnixNano(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

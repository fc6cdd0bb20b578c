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
	quarantineInsert  = `INSERT INTO quarantine (message_id, body, reason, attempts, sent_at, created_at)
		VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (message_id) DO UPDATE SET reason = excluded.reason, attempts = excluded.attempts`
	quarantineDelete = `DELETE FROM quarantine WHERE id = ?`
)

// QuarantinedMessage is a message that failed for good. It is kept until an operator
// decides.
type QuarantinedMessage struct {
	ID        int64     `json:"id"`
	MessageID string    `json:"message_id"`
	Body      string    `json:"body"`
	Reason    string    `json:"reason"`
	Attempts  int       `json:"attempts"`
	SentAt    time.Time `json:"sent_at"` // zero: unknown
	CreatedAt time.Time `json:"created_at"`
}

// Quarantine keeps a message durably. There is one row for each MessageID: a message
// quarantined again only changes its reason and attempts.
func (s *Store) Quarantine(ctx context.Context, q QuarantinedMessage) error {
	return s.inTx(ctx, func(tx transaction) error {
		_, err := tx.ExecContext(ctx, quarantineInsert, q.MessageID, q.Body, q.Reason, q.Attempts, unixNano(q.SentAt),
			s.now().UnixNano())
		if err != nil {
			return fmt.Errorf("quarantine message %s: %w", q.MessageID, err)
		}
		return nil
	})
}

// QuarantinedMessages returns every message in quarantine, oldest first.
func (s *Store) QuarantinedMessages(ctx context.Context) ([]QuarantinedMessage, error) {
	return queryAll(ctx, s.readDB, "quarantine", scanQuarantinedMessage, quarantineAll)
}

// QuarantinedMessage returns one message in quarantine, or ErrNotFound.
func (s *Store) QuarantinedMessage(ctx context.Context, id int64) (QuarantinedMessage, error) {
	q, err := scanQuarantinedMessage(s.readDB.QueryRowContext(ctx, quarantineOne, id))
	if errors.Is(err, sql.ErrNoRows) {
		return q, fmt.Errorf("quarantined message %d: %w", id, ErrNotFound)
	}
	return q, err
}

// DropQuarantined deletes a message from the quarantine. It returns ErrNotFound if there
// is none with the id.
func (s *Store) DropQuarantined(ctx context.Context, id int64) error {
	return s.inTx(ctx, func(tx transaction) error {
		return changeOne(ctx, tx, fmt.Sprintf("drop quarantined message %d", id), quarantineDelete, id)
	})
}

func scanQuarantinedMessage(row scanner) (QuarantinedMessage, error) {
	var q QuarantinedMessage
	var sent, created int64
	if err := row.Scan(&q.ID, &q.MessageID, &q.Body, &q.Reason, &q.Attempts, &sent, &created); err != nil {
		return q, fmt.Errorf("read quarantined message: %w", err)
	}
	q.SentAt, q.CreatedAt = fromUnixNano(sent), fromUnixNano(created)
	return q, nil
}

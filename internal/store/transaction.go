package store

import (
	"context"
	"database/sql"
)

// transaction is an open transaction of the write connection. A context ends it between
// two statements, never in one: each takes microseconds, and for a statement that can be
// cut off the driver starts a goroutine, which takes longer.
type transaction struct{ conn *sql.Conn }

// ExecContext runs a statement.
func (t transaction) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return t.conn.ExecContext(context.WithoutCancel(ctx), query, args...)
}

// QueryRowContext implements queryer.
func (t transaction) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	return t.conn.QueryRowContext(context.WithoutCancel(ctx), query, args...)
}

// rollback undoes everything. An error means that SQLite has done so by itself, as after
// a full disk (https://www.sqlite.org/lang_transaction.html).
func (t transaction) rollback(ctx context.Context) {
	_, _ = t.conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
}

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Some queries say +? for ?. SQLite may look at the value of a bare ? to see whether a
// partial index serves. It then compiles the query again for every value that is bound
// (https://www.sqlite.org/c3ref/prepare.html), which costs more than the query.

// queryer is a transaction or a pool of connections.
type queryer interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// scanner is a single row, or the current row of several.
type scanner interface{ Scan(dest ...any) error }

// queryAll returns every row of a query. what names the rows in an error.
func queryAll[T any](ctx context.Context, db *sql.DB, what string, scan func(scanner) (T, error),
	query string, args ...any,
) ([]T, error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	defer rows.Close()
	var list []T
	for rows.Next() {
		row, err := scan(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, row)
	}
	return list, rows.Err()
}

// queryBool returns the answer of a query such as SELECT EXISTS (…).
func queryBool(ctx context.Context, db queryer, query string, args ...any) (answer bool, err error) {
	err = db.QueryRowContext(ctx, query, args...).Scan(&answer)
	return answer, err
}

// changeOne runs a statement for one row. It returns ErrNotFound if the row does not
// exist. what names the action in an error.
func changeOne(ctx context.Context, tx transaction, what, query string, args ...any) error {
	res, err := tx.ExecContext(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return errors.Join(fmt.Errorf("%s: %w", what, ErrNotFound), err)
	}
	return nil
}

// unixNano is 0 for an unknown time.
func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// fromUnixNano is the zero time for 0.
func fromUnixNano(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

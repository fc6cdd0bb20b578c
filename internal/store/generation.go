package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

const (
	poolGeneration = `UPDATE pool SET generation = max(generation, ?) WHERE one = 1`
	poolLocated    = `UPDATE pool SET data = ?, metadata = ? WHERE one = 1 AND uuid = ?`
)

// PoolGeneration records how far the pool has come, after the pool itself says so: a pool
// that has not come so far is a copy from an earlier time.
func (s *Store) PoolGeneration(ctx context.Context, generation uint64) error {
	return s.write(ctx, &Event{Kind: "pool", Stage: "generation"}, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, poolGeneration, int64(generation)); err != nil {
			return fmt.Errorf("record the pool's generation: %w", err)
		}
		return nil
	})
}

// PoolLocated records where the parts of the pool are now. ErrNotFound says that there is
// no pool of this UUID.
func (s *Store) PoolLocated(ctx context.Context, p Pool) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, poolLocated, p.Data, p.Metadata, p.UUID)
		if err != nil {
			return fmt.Errorf("record where the pool is: %w", err)
		}
		if n, err := res.RowsAffected(); err != nil || n != 1 {
			return errors.Join(fmt.Errorf("record where pool %s is: %w", p.UUID, ErrNotFound), err)
		}
		return nil
	})
}

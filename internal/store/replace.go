package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

const poolReplace = `UPDATE pool SET uuid = ?, name = ?, data = ?, metadata = ?, block_size = ?, state = 'creating', generation = 0, created_at = ? WHERE one = 1 AND uuid = ?`

// ReplacePool records that a new pool is about to be created in the place of the one with
// the UUID old, which is lost. The devices stay in the journal: the next start finds that
// the pool does not have them and takes their images back to the stages that make them.
func (s *Store) ReplacePool(ctx context.Context, old string, p Pool) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, poolReplace, p.UUID, p.Name, p.Data, p.Metadata, p.BlockSize, s.now().
			UnixNano(), old)
		if err != nil {
			return fmt.Errorf("replace pool: %w", err)
		}
		if n, err := res.RowsAffected(); err != nil || n != 1 {
			return errors.Join(fmt.Errorf("replace pool %s: %w", old, ErrNotFound), err)
		}
		return nil
	})
}

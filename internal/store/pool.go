package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Pool is the thin pool of this state directory.
type Pool struct {
	UUID      string    `json:"uuid"`
	Name      string    `json:"name"`
	Data      string    `json:"data"`       // block device or backing file
	Metadata  string    `json:"metadata"`   // block device or backing file
	BlockSize int64     `json:"block_size"` // bytes
	State     string    `json:"state"`      // creating, ready
	CreatedAt time.Time `json:"created_at"`

	Generation uint64 `json:"generation"` // see SetPoolGeneration
}

const (
	poolSelect = `SELECT uuid, name, data, metadata, block_size, state, generation, created_at FROM pool`
	poolInsert = `INSERT INTO pool (one, uuid, name, data, metadata, block_size, state, created_at)
		VALUES (1, ?, ?, ?, ?, ?, 'creating', ?)`
	poolReplace = `UPDATE pool SET uuid = ?, name = ?, data = ?, metadata = ?, block_size = ?, state = 'creating',
		generation = 0, created_at = ? WHERE one = 1 AND uuid = ?`
	poolSetReady      = `UPDATE pool SET state = 'ready' WHERE one = 1`
	poolSetGeneration = `UPDATE pool SET generation = max(generation, ?) WHERE one = 1`
	poolSetPaths      = `UPDATE pool SET data = ?, metadata = ? WHERE one = 1 AND uuid = ?`
)

// Pool returns the pool, or ErrNotFound if none was created yet.
func (s *Store) Pool(ctx context.Context) (Pool, error) {
	var p Pool
	var at int64
	err := s.readDB.QueryRowContext(ctx, poolSelect).
		Scan(&p.UUID, &p.Name, &p.Data, &p.Metadata, &p.BlockSize, &p.State, &p.Generation, &at)
	if errors.Is(err, sql.ErrNoRows) {
		return p, fmt.Errorf("pool: %w", ErrNotFound)
	}
	if err != nil {
		return p, fmt.Errorf("read pool: %w", err)
	}
	p.CreatedAt = time.Unix(0, at).UTC()
	return p, nil
}

// BeginPool records the intent to create the pool.
func (s *Store) BeginPool(ctx context.Context, p Pool) error {
	return s.write(ctx, labelled("pool:creating:"), func(tx transaction) error {
		return insertPool(ctx, tx, p, s.now())
	})
}

// FinishPool records the creation of the pool. From now on its metadata is never
// formatted again.
func (s *Store) FinishPool(ctx context.Context) error {
	return s.write(ctx, labelled("pool:ready:"), func(tx transaction) error {
		_, err := tx.ExecContext(ctx, poolSetReady)
		return err
	})
}

// ReplacePool records the intent to create a new pool in the place of a lost one, whose
// UUID is old. The devices stay in the journal. The next start does not find them in the
// new pool, and takes their images back to the stages that make them.
func (s *Store) ReplacePool(ctx context.Context, old string, p Pool) error {
	return s.inTx(ctx, func(tx transaction) error {
		return changeOne(ctx, tx, "replace pool "+old, poolReplace, p.UUID, p.Name, p.Data, p.Metadata, p.BlockSize,
			s.now().UnixNano(), old)
	})
}

// SetPoolGeneration records the pool's generation, after the pool itself has it. It never
// lowers it. A pool of a lower generation is a copy from an earlier time.
func (s *Store) SetPoolGeneration(ctx context.Context, generation uint64) error {
	return s.write(ctx, labelled("pool:generation:"), func(tx transaction) error {
		if _, err := tx.ExecContext(ctx, poolSetGeneration, int64(generation)); err != nil {
			return fmt.Errorf("record the pool's generation: %w", err)
		}
		return nil
	})
}

// SetPoolPaths records the new places of the pool's data and metadata. It returns
// ErrNotFound if the state directory has no pool of this UUID.
func (s *Store) SetPoolPaths(ctx context.Context, p Pool) error {
	return s.inTx(ctx, func(tx transaction) error {
		return changeOne(ctx, tx, "record where pool "+p.UUID+" is", poolSetPaths, p.Data, p.Metadata, p.UUID)
	})
}

func insertPool(ctx context.Context, tx transaction, p Pool, now time.Time) error {
	_, err := tx.ExecContext(ctx, poolInsert, p.UUID, p.Name, p.Data, p.Metadata, p.BlockSize, now.UnixNano())
	if err != nil {
		return fmt.Errorf("record pool: %w", err)
	}
	return nil
}

package main

import (
	"context"
	"fmt"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
)

// replacePool makes the journal forget a pool that is lost, in favour of a new one that
// is about to be created. Nothing is taken for lost that could be opened, and the new
// pool goes where there is nothing: no option overrules that. The journal keeps the
// devices; the pool with the new UUID does not have them, so the next start makes every
// image again.
func (s *system) replacePool(ctx context.Context, lost store.Pool, o poolOptions) (store.Pool, error) {
	if err := devmapper.Lost(poolConfig(lost)); err != nil {
		return lost, fmt.Errorf("the pool is not lost, and stays: %w", err)
	}
	row, err := s.newPool(o)
	if err != nil {
		return lost, err
	}
	for _, path := range []string{row.Data, row.Metadata} {
		if err := devmapper.Empty(path); err != nil {
			return lost, err
		}
	}
	if err := s.store.ReplacePool(ctx, lost.UUID, row); err != nil {
		return lost, err
	}
	s.log.Warn().Str("lost", lost.UUID).Str("data", lost.Data).Str("metadata", lost.Metadata).Str("new", row.UUID).
		Msg("pool replaced")
	return s.store.Pool(ctx)
}

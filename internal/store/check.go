package store

import "context"

// Check looks for damage, without a change: it reads the whole database. It returns
// ErrCorrupt when SQLite finds any.
func (s *Store) Check(ctx context.Context) error {
	return asCorrupt(s.path, integrityCheck(ctx, s.readDB, "PRAGMA quick_check(1)", s.path))
}

-- The generation of the pool that the journal knows of: an older pool is a copy from before.
ALTER TABLE pool ADD COLUMN generation INTEGER NOT NULL DEFAULT 0 CHECK (generation >= 0);

-- The state `removed`, and the events `removed` and `resubmitted`. A CHECK cannot be altered: the tables are made anew, in the order of
-- https://www.sqlite.org/lang_altertable.html#otheralter; foreign keys are off meanwhile and checked before the commit.

CREATE TABLE new_images (
	id          INTEGER PRIMARY KEY AUTOINCREMENT,
	bucket      TEXT    NOT NULL CHECK (bucket <> ''),
	key         TEXT    NOT NULL CHECK (key <> ''),
	version     TEXT    NOT NULL,            -- versionId, else eTag: the third part of an object's identity
	version_id  TEXT    NOT NULL,
	etag        TEXT    NOT NULL,
	sequencer   TEXT    NOT NULL,
	size        INTEGER NOT NULL CHECK (size >= 0), -- bytes as notified, 0 unknown
	created_at  INTEGER NOT NULL,
	-- what follows is the fold of the image's events
	state       TEXT    NOT NULL CHECK (state IN ('pending', 'active', 'rejected', 'violation', 'superseded', 'vanished', 'dead', 'removed')),
	stage       TEXT    NOT NULL CHECK (stage IN ('download', 'unpack', 'activate', '')),
	running     INTEGER NOT NULL CHECK (running IN (0, 1)),
	attempt     INTEGER NOT NULL CHECK (attempt >= 0),
	failures    INTEGER NOT NULL CHECK (failures >= 0),
	reason      TEXT    NOT NULL,
	blob        TEXT    CHECK (json_valid(blob)),
	tree        TEXT    CHECK (json_valid(tree)),
	updated_at  INTEGER NOT NULL,
	UNIQUE (bucket, key, version)
) STRICT;
INSERT INTO new_images SELECT id, bucket, key, version, version_id, etag, sequencer, size, created_at,
	state, stage, running, attempt, failures, reason, blob, tree, updated_at FROM images;
DROP TABLE images;
ALTER TABLE new_images RENAME TO images;
CREATE INDEX images_pending ON images (id) WHERE state = 'pending';

CREATE TABLE new_events (
	seq       INTEGER PRIMARY KEY AUTOINCREMENT,
	image_id  INTEGER NOT NULL REFERENCES images (id) ON DELETE RESTRICT,
	at        INTEGER NOT NULL,
	kind      TEXT    NOT NULL CHECK (kind IN ('queued', 'begun', 'step', 'done', 'failed', 'undone', 'reopened', 'removed', 'resubmitted')),
	stage     TEXT    NOT NULL CHECK (stage IN ('download', 'unpack', 'activate', '')),
	attempt   INTEGER NOT NULL,
	verdict   TEXT    NOT NULL,
	reason    TEXT    NOT NULL,
	detail    TEXT    NOT NULL CHECK (json_valid(detail))
) STRICT;
INSERT INTO new_events SELECT seq, image_id, at, kind, stage, attempt, verdict, reason, detail FROM events;
DROP TABLE events;
ALTER TABLE new_events RENAME TO events;
CREATE INDEX events_image ON events (image_id, seq);

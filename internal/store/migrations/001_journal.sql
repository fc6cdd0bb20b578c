-- The journal, and the tables that are its fold. Times are Unix nanoseconds, UTC.

CREATE TABLE images (
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
	state       TEXT    NOT NULL CHECK (state IN ('pending', 'active', 'rejected', 'violation', 'superseded', 'vanished', 'dead')),
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

CREATE INDEX images_pending ON images (id) WHERE state = 'pending';

CREATE TABLE events (
	seq       INTEGER PRIMARY KEY AUTOINCREMENT,
	image_id  INTEGER NOT NULL REFERENCES images (id) ON DELETE RESTRICT,
	at        INTEGER NOT NULL,
	kind      TEXT    NOT NULL CHECK (kind IN ('queued', 'begun', 'step', 'done', 'failed', 'undone', 'reopened')),
	stage     TEXT    NOT NULL CHECK (stage IN ('download', 'unpack', 'activate', '')),
	attempt   INTEGER NOT NULL,
	verdict   TEXT    NOT NULL,
	reason    TEXT    NOT NULL,
	detail    TEXT    NOT NULL CHECK (json_valid(detail))
) STRICT;

CREATE INDEX events_image ON events (image_id, seq);

-- AUTOINCREMENT: a thin device id is never handed out twice.
CREATE TABLE devices (
	id          INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 16777215),
	image_id    INTEGER NOT NULL REFERENCES images (id) ON DELETE RESTRICT,
	kind        TEXT    NOT NULL CHECK (kind IN ('image', 'snapshot')),
	state       TEXT    NOT NULL CHECK (state IN ('reserved', 'created', 'formatted', 'filled', 'sealed', 'ready', 'deleting', 'gone')),
	origin      INTEGER REFERENCES devices (id),
	bytes       INTEGER NOT NULL CHECK (bytes > 0),
	fs_uuid     TEXT    NOT NULL,
	updated_at  INTEGER NOT NULL,
	CHECK ((kind = 'snapshot') = (origin IS NOT NULL))
) STRICT;

CREATE INDEX devices_image ON devices (image_id);
CREATE UNIQUE INDEX devices_one_image ON devices (image_id) WHERE kind = 'image' AND state IN ('sealed', 'ready');

CREATE TABLE snapshots (
	device_id   INTEGER PRIMARY KEY REFERENCES devices (id) ON DELETE RESTRICT,
	image_id    INTEGER NOT NULL REFERENCES images (id) ON DELETE RESTRICT,
	path        TEXT    NOT NULL CHECK (path <> ''),
	state       TEXT    NOT NULL CHECK (state IN ('active', 'gone')),
	created_at  INTEGER NOT NULL
) STRICT;

CREATE INDEX snapshots_image ON snapshots (image_id);

-- The one pool this state directory manages.
CREATE TABLE pool (
	one         INTEGER PRIMARY KEY CHECK (one = 1),
	uuid        TEXT    NOT NULL,
	name        TEXT    NOT NULL,
	data        TEXT    NOT NULL,
	metadata    TEXT    NOT NULL,
	block_size  INTEGER NOT NULL,
	state       TEXT    NOT NULL CHECK (state IN ('creating', 'ready')),
	created_at  INTEGER NOT NULL
) STRICT;

-- Messages that could not be acted on and had no dead-letter queue to go to: kept here until an operator decides.
CREATE TABLE quarantine (
	id          INTEGER PRIMARY KEY AUTOINCREMENT,
	message_id  TEXT    NOT NULL UNIQUE,     -- a redelivery of the same message is the same row
	body        TEXT    NOT NULL,
	reason      TEXT    NOT NULL,
	attempts    INTEGER NOT NULL CHECK (attempts >= 0),
	sent_at     INTEGER NOT NULL,            -- 0 unknown
	created_at  INTEGER NOT NULL
) STRICT;

-- How far the listing of the bucket has come.
CREATE TABLE backfill (
	one         INTEGER PRIMARY KEY CHECK (one = 1),
	bucket      TEXT    NOT NULL,
	prefix      TEXT    NOT NULL,
	token       TEXT    NOT NULL,            -- continuation token of the next page, '' when the listing is complete
	listed      INTEGER NOT NULL,
	enqueued    INTEGER NOT NULL,
	started_at  INTEGER NOT NULL,
	updated_at  INTEGER NOT NULL
) STRICT;

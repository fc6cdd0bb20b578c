-- The journal, and the tables that its events keep up to date.
-- Times are Unix nanoseconds, UTC.

CREATE TABLE images (
	id          INTEGER PRIMARY KEY AUTOINCREMENT,
	bucket      TEXT    NOT NULL CHECK (bucket <> ''),
	key         TEXT    NOT NULL CHECK (key <> ''),
	version     TEXT    NOT NULL,  -- identity: the versionId, or the eTag without one
	version_id  TEXT    NOT NULL,
	etag        TEXT    NOT NULL,
	sequencer   TEXT    NOT NULL,
	size        INTEGER NOT NULL CHECK (size >= 0), -- bytes as notified, 0 unknown
	trace_id    TEXT    NOT NULL CHECK (trace_id <> ''), -- 32 hex digits
	created_at  INTEGER NOT NULL,

	-- The columns from here on are the fold of the image's events.
	state       TEXT    NOT NULL CHECK (state IN ('pending', 'active', 'rejected',
		'violation', 'superseded', 'vanished', 'dead', 'removed')),
	stage       TEXT    NOT NULL CHECK (stage IN ('download', 'unpack', 'activate', '')),
	running     INTEGER NOT NULL CHECK (running IN (0, 1)),
	attempt     INTEGER NOT NULL CHECK (attempt >= 0),
	failures    INTEGER NOT NULL CHECK (failures >= 0),
	reason      TEXT    NOT NULL,
	blob        TEXT    CHECK (json_valid(blob)),
	tree        TEXT    CHECK (json_valid(tree)),
	updated_at  INTEGER NOT NULL,

	-- attempts in a row that ended because the process or the machine died
	cut_offs    INTEGER NOT NULL DEFAULT 0 CHECK (cut_offs >= 0),
	-- the state that the newest failure suspects; the next failure may confirm it
	doubt       TEXT    NOT NULL DEFAULT '',
	-- policy and limits under which the image was refused
	rules       TEXT    NOT NULL DEFAULT '',

	UNIQUE (bucket, key, version)
) STRICT;

CREATE INDEX images_pending ON images (id) WHERE state = 'pending';
-- Every scrape of the metrics counts by state, without reading the rows.
CREATE INDEX images_state ON images (state);

CREATE TABLE events (
	seq       INTEGER PRIMARY KEY AUTOINCREMENT,
	image_id  INTEGER NOT NULL REFERENCES images (id) ON DELETE RESTRICT,
	at        INTEGER NOT NULL,
	kind      TEXT    NOT NULL CHECK (kind IN ('queued', 'begun', 'step', 'done', 'failed',
		'undone', 'reopened', 'removed', 'resubmitted')),
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
	state       TEXT    NOT NULL CHECK (state IN ('reserved', 'created', 'formatted',
		'filled', 'sealed', 'ready', 'deleting', 'gone')),
	origin      INTEGER REFERENCES devices (id),
	bytes       INTEGER NOT NULL CHECK (bytes > 0),
	fs_uuid     TEXT    NOT NULL,
	updated_at  INTEGER NOT NULL,
	CHECK ((kind = 'snapshot') = (origin IS NOT NULL))
) STRICT;

CREATE INDEX devices_image ON devices (image_id);
CREATE INDEX devices_state ON devices (kind, state) WHERE state <> 'gone';
CREATE UNIQUE INDEX devices_one_image ON devices (image_id)
	WHERE kind = 'image' AND state IN ('sealed', 'ready');

CREATE TABLE snapshots (
	device_id   INTEGER PRIMARY KEY REFERENCES devices (id) ON DELETE RESTRICT,
	image_id    INTEGER NOT NULL REFERENCES images (id) ON DELETE RESTRICT,
	path        TEXT    NOT NULL CHECK (path <> ''),
	state       TEXT    NOT NULL CHECK (state IN ('active', 'gone')),
	created_at  INTEGER NOT NULL
) STRICT;

CREATE INDEX snapshots_image ON snapshots (image_id);

-- The one pool of this state directory.
CREATE TABLE pool (
	one         INTEGER PRIMARY KEY CHECK (one = 1),
	uuid        TEXT    NOT NULL,
	name        TEXT    NOT NULL,
	data        TEXT    NOT NULL,
	metadata    TEXT    NOT NULL,
	block_size  INTEGER NOT NULL,
	state       TEXT    NOT NULL CHECK (state IN ('creating', 'ready')),
	created_at  INTEGER NOT NULL,

	-- the newest generation that the pool has reached; one of an older is a stale copy
	generation  INTEGER NOT NULL DEFAULT 0 CHECK (generation >= 0)
) STRICT;

-- Messages that failed for good while no dead-letter queue was configured. They are kept
-- here until an operator decides.
CREATE TABLE quarantine (
	id          INTEGER PRIMARY KEY AUTOINCREMENT,
	message_id  TEXT    NOT NULL UNIQUE,  -- a redelivered message has the same row
	body        TEXT    NOT NULL,
	reason      TEXT    NOT NULL,
	attempts    INTEGER NOT NULL CHECK (attempts >= 0),
	sent_at     INTEGER NOT NULL,         -- 0 unknown
	created_at  INTEGER NOT NULL
) STRICT;

-- The progress of the listing of the bucket.
CREATE TABLE backfill (
	one         INTEGER PRIMARY KEY CHECK (one = 1),
	bucket      TEXT    NOT NULL,
	prefix      TEXT    NOT NULL,
	token       TEXT    NOT NULL,  -- of the next page; '' when the listing is complete
	listed      INTEGER NOT NULL,
	enqueued    INTEGER NOT NULL,
	started_at  INTEGER NOT NULL,
	updated_at  INTEGER NOT NULL
) STRICT;

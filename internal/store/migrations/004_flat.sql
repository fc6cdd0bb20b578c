-- What is asked again and again must not cost more the longer the history is.

-- SQLite before 3.42 says that json_valid(NULL) is 0, and then PRAGMA quick_check calls
-- every image without a blob or a tree an error. A CHECK is changed with its table.
CREATE TABLE new_images (
	id          INTEGER PRIMARY KEY AUTOINCREMENT,
	bucket      TEXT    NOT NULL CHECK (bucket <> ''),
	key         TEXT    NOT NULL CHECK (key <> ''),
	version     TEXT    NOT NULL,
	version_id  TEXT    NOT NULL,
	etag        TEXT    NOT NULL,
	sequencer   TEXT    NOT NULL,
	size        INTEGER NOT NULL CHECK (size >= 0),
	trace_id    TEXT    NOT NULL CHECK (trace_id <> ''),
	created_at  INTEGER NOT NULL,
	state       TEXT    NOT NULL CHECK (state IN ('pending', 'active', 'rejected',
		'violation', 'superseded', 'vanished', 'dead', 'removed')),
	stage       TEXT    NOT NULL CHECK (stage IN ('download', 'unpack', 'activate', '')),
	running     INTEGER NOT NULL CHECK (running IN (0, 1)),
	attempt     INTEGER NOT NULL CHECK (attempt >= 0),
	failures    INTEGER NOT NULL CHECK (failures >= 0),
	reason      TEXT    NOT NULL,
	blob        TEXT    CHECK (blob IS NULL OR json_valid(blob)),
	tree        TEXT    CHECK (tree IS NULL OR json_valid(tree)),
	updated_at  INTEGER NOT NULL,
	cut_offs    INTEGER NOT NULL DEFAULT 0 CHECK (cut_offs >= 0),
	doubt       TEXT    NOT NULL DEFAULT '',
	rules       TEXT    NOT NULL DEFAULT '',
	UNIQUE (bucket, key, version)
) STRICT;
INSERT INTO new_images SELECT id, bucket, key, version, version_id, etag, sequencer, size, trace_id, created_at,
	state, stage, running, attempt, failures, reason, blob, tree, updated_at, cut_offs, doubt, rules FROM images;
-- Ids that were handed out are not handed out again, whatever became of their rows.
DELETE FROM sqlite_sequence WHERE name = 'new_images';
INSERT INTO sqlite_sequence (name, seq) SELECT 'new_images', seq FROM sqlite_sequence WHERE name = 'images';
DROP TABLE images;
ALTER TABLE new_images RENAME TO images;

CREATE INDEX images_pending ON images (id) WHERE state = 'pending';
CREATE INDEX images_state ON images (state);
CREATE INDEX images_key ON images (key);
-- Before a manifest is removed, it is asked who else has the same tree.
CREATE INDEX images_tree ON images (json_extract(tree, '$.digest')) WHERE tree IS NOT NULL;

-- How many rows there are, for every scrape of the metrics. The triggers keep it right.
CREATE TABLE counts (
	name  TEXT    NOT NULL CHECK (name IN ('images', 'devices')),
	state TEXT    NOT NULL, -- of images; '' for devices, of which all that ever were count
	n     INTEGER NOT NULL CHECK (n >= 0),
	PRIMARY KEY (name, state)
) STRICT, WITHOUT ROWID;
INSERT INTO counts SELECT 'images', state, count(*) FROM images GROUP BY state;
INSERT INTO counts SELECT 'devices', '', count(*) FROM devices;

CREATE TRIGGER images_inserted AFTER INSERT ON images BEGIN
	INSERT INTO counts VALUES ('images', new.state, 1) ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER images_changed AFTER UPDATE OF state ON images WHEN old.state <> new.state BEGIN
	UPDATE counts SET n = n - 1 WHERE name = 'images' AND state = old.state;
	INSERT INTO counts VALUES ('images', new.state, 1) ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER images_deleted AFTER DELETE ON images BEGIN
	UPDATE counts SET n = n - 1 WHERE name = 'images' AND state = old.state;
END;
CREATE TRIGGER devices_inserted AFTER INSERT ON devices BEGIN
	UPDATE counts SET n = n + 1 WHERE name = 'devices';
END;
CREATE TRIGGER devices_deleted AFTER DELETE ON devices BEGIN
	UPDATE counts SET n = n - 1 WHERE name = 'devices';
END;

-- What the policy changed in the tree on a device. A device gets its rows with its seal.
CREATE TABLE adjustments (
	device_id   INTEGER NOT NULL REFERENCES devices (id) ON DELETE RESTRICT,
	n           INTEGER NOT NULL CHECK (n >= 0), -- in the order of the archive
	rule        TEXT    NOT NULL CHECK (rule <> ''),
	entry       TEXT    NOT NULL,
	was         TEXT    NOT NULL,
	became      TEXT    NOT NULL, -- '' for what was left out
	PRIMARY KEY (device_id, n)
) STRICT, WITHOUT ROWID;

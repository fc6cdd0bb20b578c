-- Lookups by key, and what is there of all that ever was.
CREATE INDEX images_key ON images (key);
CREATE INDEX devices_living ON devices (id) WHERE state <> 'gone';
CREATE INDEX snapshots_active ON snapshots (device_id) WHERE state = 'active';
CREATE INDEX snapshots_path ON snapshots (path);

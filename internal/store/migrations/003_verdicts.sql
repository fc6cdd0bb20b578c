-- What a verdict rests on. STRICT tables take a new column with a default.

ALTER TABLE images ADD COLUMN cut_offs INTEGER NOT NULL DEFAULT 0 CHECK (cut_offs >= 0); -- attempts in a row that died with the process
ALTER TABLE images ADD COLUMN doubt    TEXT    NOT NULL DEFAULT '';                      -- what the newest failure suspects, to be seen twice
ALTER TABLE images ADD COLUMN rules    TEXT    NOT NULL DEFAULT '';                      -- policy and limits that a refusal was given under

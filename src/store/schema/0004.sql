-- Built behind the log, a segment of entries at a time (src/store/sqlite/lazy.rs): blocks of many entries in the place of
-- a row for each, so that what an append costs later is a small part of what it costs at once.
-- What lies beyond the last whole segment (meta 'indexed_to') is found by looking through the log itself.

-- What people search for: label values, request ids, keys. A row for each 64th of a segment's texts, by their hash.
CREATE TABLE term_block (
    id     INTEGER PRIMARY KEY,        -- segment * 64 + part
    places BLOB NOT NULL               -- words of 8 bytes: 48 bits of the hash, 16 of the place within the segment
) STRICT;

CREATE TABLE route_block (
    segment INTEGER NOT NULL,
    route   TEXT    NOT NULL,
    places  BLOB    NOT NULL,          -- a bit for each place within the segment
    PRIMARY KEY (segment, route)
) STRICT, WITHOUT ROWID;

-- What a start needs of open entries, without their bytes.
CREATE TABLE brief_block (
    id     INTEGER PRIMARY KEY,        -- (seq - 1) / 256
    briefs BLOB NOT NULL               -- with a checksum: src/store/sqlite/lazy/briefs.rs
) STRICT;

-- The append log: one row per entry, written once with one insert, in order, without secondary indexes.
-- State words are those of the product; times are milliseconds since 1970 UTC.
CREATE TABLE log (
    seq            INTEGER PRIMARY KEY,
    received_at    INTEGER NOT NULL,
    route          TEXT    NOT NULL,
    upstream       TEXT    NOT NULL,
    key            BLOB    NOT NULL,   -- digest of route, principal and key
    fingerprint    BLOB    NOT NULL,   -- digest of method, target and body
    sequence       BLOB,               -- digest; entries of one sequence are sent in order
    customer       BLOB,               -- digest; whose caps it counts against
    amount         INTEGER NOT NULL,
    not_before     INTEGER NOT NULL,
    expires_at     INTEGER NOT NULL,
    reason         TEXT    NOT NULL,   -- why standin answered
    certainty      TEXT    NOT NULL,   -- what the first attempt left behind
    held           TEXT,               -- stored as held at once, and why
    request_id     TEXT    NOT NULL,
    key_text       TEXT    NOT NULL,
    principal      TEXT    NOT NULL,
    cause          TEXT    NOT NULL,
    labels         TEXT    NOT NULL,   -- JSON [[name, value], …], or empty
    client_ip      TEXT    NOT NULL,
    method         TEXT    NOT NULL,
    target         TEXT    NOT NULL,
    headers        BLOB    NOT NULL,   -- 'name: value' lines, in order
    trailers       BLOB    NOT NULL,
    answer_status  INTEGER NOT NULL,   -- the answer the client got
    answer_headers BLOB    NOT NULL,
    answer_body    BLOB    NOT NULL,
    checksum       INTEGER NOT NULL,
    body           BLOB    NOT NULL
) STRICT;

-- Where entries that moved stand. An entry without a row here is as its log row says: stored, or held at once.
CREATE TABLE state (
    seq         INTEGER PRIMARY KEY,
    state       TEXT    NOT NULL,      -- stored, sending, held, closed (a claim, leased, is only in memory)
    outcome     TEXT,
    held        TEXT,
    certainty   TEXT    NOT NULL,      -- the worst over all attempts and over its key
    attempts    INTEGER NOT NULL,
    interrupted INTEGER NOT NULL,      -- starts in a row that found it in 'sending'
    not_before  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    fence       INTEGER NOT NULL,      -- the last claim: incarnation of the process (upper bits) and number
    closed_at   INTEGER,
    key         BLOB,                  -- these five of closed entries only: still known when the log row is gone
    fingerprint BLOB,
    route       TEXT,
    customer    BLOB,
    received_at INTEGER
) STRICT;
CREATE INDEX state_closed ON state (closed_at) WHERE closed_at IS NOT NULL;
CREATE INDEX state_outcome ON state (outcome, seq) WHERE outcome IS NOT NULL;

-- Append-only. The first line of an entry, how it was stored, is its log row.
CREATE TABLE history (
    seq            INTEGER NOT NULL,
    line           INTEGER NOT NULL,
    at             INTEGER NOT NULL,
    state          TEXT    NOT NULL,
    outcome        TEXT,
    held           TEXT,
    who            TEXT    NOT NULL,
    why            TEXT    NOT NULL,
    attempt        INTEGER NOT NULL,
    answer_status  INTEGER,
    answer_headers BLOB,
    answer_body    BLOB,
    PRIMARY KEY (seq, line)
) STRICT, WITHOUT ROWID;

-- The kept answers of closed entries whose log rows are gone while their keys are still known.
CREATE TABLE kept_answer (
    seq            INTEGER PRIMARY KEY,
    answer_status  INTEGER NOT NULL,
    answer_headers BLOB    NOT NULL,
    answer_body    BLOB    NOT NULL
) STRICT;

-- Built behind the log, a segment of entries at a time and in sorted order, so that an append pays for none of it.
-- What lies beyond the last whole segment (meta 'indexed_to') is found by looking through the log itself.

-- What people search for: label values, request ids, keys, routes. Long texts are cut and end in a digest.
CREATE TABLE term (
    segment INTEGER NOT NULL,
    text    BLOB    NOT NULL,
    seq     INTEGER NOT NULL,
    PRIMARY KEY (segment, text, seq)
) STRICT, WITHOUT ROWID;

-- What a start needs of an open entry, without its bytes.
CREATE TABLE brief (
    seq         INTEGER PRIMARY KEY,
    received_at INTEGER NOT NULL,
    route       TEXT    NOT NULL,
    upstream    TEXT    NOT NULL,
    key         BLOB    NOT NULL,
    fingerprint BLOB    NOT NULL,
    sequence    BLOB,
    customer    BLOB,
    amount      INTEGER NOT NULL,
    not_before  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    certainty   TEXT    NOT NULL,
    held        TEXT
) STRICT;

-- Between which numbers the entries of an hour lie.
CREATE TABLE hour (
    hour  INTEGER PRIMARY KEY,         -- hours since 1970
    first INTEGER NOT NULL,
    last  INTEGER NOT NULL
) STRICT;

-- Per UTC day (days since 1970) and route: what was accepted on that day, and what ended on it.
CREATE TABLE volume (
    day         INTEGER NOT NULL,
    route       TEXT    NOT NULL,
    accepted    INTEGER NOT NULL DEFAULT 0,
    amount      INTEGER NOT NULL DEFAULT 0,
    completed   INTEGER NOT NULL DEFAULT 0,
    declined    INTEGER NOT NULL DEFAULT 0,
    written_off INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (day, route)
) STRICT, WITHOUT ROWID;

-- Who did what, to what, and why. Append-only.
CREATE TABLE audit (
    id      INTEGER PRIMARY KEY,
    at      INTEGER NOT NULL,
    who     TEXT    NOT NULL,
    what    TEXT    NOT NULL,
    done_to TEXT    NOT NULL,
    why     TEXT    NOT NULL
) STRICT;

-- Small durable values of other parts, by name.
CREATE TABLE value (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The store's own numbers: salt, incarnation, watermarks.
CREATE TABLE meta (
    name  TEXT    NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

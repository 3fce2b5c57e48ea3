"""Forward migrations: ``MIGRATIONS[n]`` is the SQL that takes schema n to n + 1."""

from __future__ import annotations

_TWO = """
DROP INDEX revision_unrouted;
CREATE INDEX revision_unrouted ON revision (routed) WHERE routed <> 1;
CREATE TABLE package (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    origin TEXT NOT NULL,
    folder TEXT NOT NULL DEFAULT '',
    manifest TEXT NOT NULL,
    state TEXT NOT NULL,
    state_at TEXT NOT NULL,
    was TEXT NOT NULL DEFAULT '',
    why TEXT NOT NULL DEFAULT '',
    chosen INTEGER NOT NULL DEFAULT 1,
    choice TEXT NOT NULL DEFAULT '',
    live_after_days REAL,
    live_after_studies INTEGER,
    signed_by TEXT NOT NULL DEFAULT '[]',
    p95_ms REAL,
    installed_at TEXT NOT NULL,
    UNIQUE (name, version, digest)
) STRICT;

CREATE TABLE operating_point (
    package TEXT NOT NULL,
    version TEXT NOT NULL,
    finding TEXT NOT NULL,
    point TEXT NOT NULL,
    since_at TEXT NOT NULL,
    actor TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (package, version, finding)
) WITHOUT ROWID, STRICT;
"""

#: Schema 1 is the first; ``schema.sql`` always writes the newest. A test holds both against each other.
MIGRATIONS: dict[int, str] = {1: _TWO}

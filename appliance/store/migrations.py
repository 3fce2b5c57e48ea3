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

_THREE = """
ALTER TABLE association ADD COLUMN can_store INTEGER NOT NULL DEFAULT 1;
ALTER TABLE version ADD COLUMN exposure_index REAL;
ALTER TABLE version ADD COLUMN target_exposure_index REAL;
ALTER TABLE version ADD COLUMN deviation_index REAL;
ALTER TABLE delivery ADD COLUMN identity_revision INTEGER NOT NULL DEFAULT 1;
ALTER TABLE delivery ADD COLUMN study_instance_uid TEXT NOT NULL DEFAULT '';
UPDATE delivery SET
 identity_revision = (SELECT identity_revision FROM study WHERE id = delivery.study_id),
 study_instance_uid = (SELECT study_instance_uid FROM study WHERE id = delivery.study_id)
 WHERE kind <> 'original';
ALTER TABLE revision ADD COLUMN rejected TEXT;
CREATE TABLE rejected_instance (
    sop_instance_uid TEXT PRIMARY KEY,
    title TEXT NOT NULL,
    version_id INTEGER NOT NULL,
    rejected_at TEXT NOT NULL
) WITHOUT ROWID, STRICT;
CREATE TABLE performed_step (
    id INTEGER PRIMARY KEY,
    sop_instance_uid TEXT NOT NULL UNIQUE,
    source TEXT NOT NULL,
    state TEXT NOT NULL,
    begun_at TEXT NOT NULL,
    ended_at TEXT
) STRICT;
CREATE TABLE performed_image (
    series_instance_uid TEXT NOT NULL,
    sop_instance_uid TEXT NOT NULL,
    step_id INTEGER NOT NULL REFERENCES performed_step (id),
    PRIMARY KEY (series_instance_uid, sop_instance_uid, step_id)
) WITHOUT ROWID, STRICT;
CREATE INDEX performed_image_step ON performed_image (step_id);
CREATE TABLE study_order (
    study_id INTEGER PRIMARY KEY REFERENCES study (id),
    state TEXT NOT NULL,
    asked INTEGER NOT NULL,
    asked_at TEXT NOT NULL,
    next_at TEXT,
    identity_revision INTEGER NOT NULL,
    priority TEXT NOT NULL DEFAULT '',
    procedure_id TEXT NOT NULL DEFAULT '',
    procedure_description TEXT NOT NULL DEFAULT '',
    accession_number TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE TABLE quality_choice (
    analysis_id INTEGER PRIMARY KEY REFERENCES analysis (id),
    choice TEXT NOT NULL,
    reason TEXT NOT NULL,
    decided_at TEXT NOT NULL,
    decided_by TEXT NOT NULL
) STRICT;
ALTER TABLE study ADD COLUMN kept INTEGER NOT NULL DEFAULT 1;
ALTER TABLE study ADD COLUMN images_removed_at TEXT;
CREATE INDEX study_kept ON study (last_at) WHERE kept = 1;
ALTER TABLE version ADD COLUMN removed_at TEXT;
ALTER TABLE version ADD COLUMN pixel_sha256 TEXT;
CREATE INDEX version_comparing ON version (id) WHERE state = 'comparing';
ALTER TABLE analysis ADD COLUMN files_removed_at TEXT;
CREATE INDEX analysis_files ON analysis (done_at) WHERE files_removed_at IS NULL;
ALTER TABLE delivery ADD COLUMN committed_at TEXT;
ALTER TABLE delivery ADD COLUMN commit_tries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE delivery ADD COLUMN commit_next_at TEXT NOT NULL DEFAULT '';
ALTER TABLE delivery ADD COLUMN commit_reason INTEGER;
ALTER TABLE delivery ADD COLUMN removed_at TEXT;
CREATE INDEX delivery_uncommitted ON delivery (destination, commit_next_at)
 WHERE state = 'sent' AND committed_at IS NULL AND removed_at IS NULL;
CREATE INDEX delivery_path ON delivery (path) WHERE kind <> 'original';
CREATE TABLE commitment (
    id INTEGER PRIMARY KEY,
    destination TEXT NOT NULL,
    transaction_uid TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    asked_at TEXT NOT NULL,
    answered_at TEXT
) STRICT;
CREATE INDEX commitment_asking ON commitment (destination) WHERE state = 'asking';
CREATE TABLE commitment_delivery (
    commitment_id INTEGER NOT NULL REFERENCES commitment (id),
    delivery_id INTEGER NOT NULL,
    PRIMARY KEY (commitment_id, delivery_id)
) WITHOUT ROWID, STRICT;
CREATE INDEX commitment_delivery_of ON commitment_delivery (delivery_id);
CREATE TABLE commitment_request (
    id INTEGER PRIMARY KEY,
    source TEXT NOT NULL,
    transaction_uid TEXT NOT NULL,
    calling_ae TEXT NOT NULL,
    called_ae TEXT NOT NULL,
    state TEXT NOT NULL,
    asked_at TEXT NOT NULL,
    reported_at TEXT,
    attempt INTEGER NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT '',
    UNIQUE (source, transaction_uid)
) STRICT;
CREATE INDEX commitment_request_waiting ON commitment_request (source, id) WHERE state = 'waiting';
CREATE TABLE commitment_item (
    request_id INTEGER NOT NULL REFERENCES commitment_request (id),
    sop_instance_uid TEXT NOT NULL,
    sop_class_uid TEXT NOT NULL,
    reason INTEGER,
    PRIMARY KEY (request_id, sop_instance_uid)
) WITHOUT ROWID, STRICT;
"""

#: Schema 1 is the first; ``schema.sql`` always writes the newest. A test holds both against each other.
MIGRATIONS: dict[int, str] = {1: _TWO, 2: _THREE}

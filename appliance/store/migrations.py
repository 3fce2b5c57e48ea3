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

_FOUR = """
CREATE TABLE account (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE COLLATE NOCASE,
    full_name TEXT NOT NULL,
    role TEXT NOT NULL,
    password TEXT,
    must_change INTEGER NOT NULL DEFAULT 0,
    subject TEXT UNIQUE,
    is_active INTEGER NOT NULL DEFAULT 1,
    made_at TEXT NOT NULL
) STRICT;
CREATE TABLE screen (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    sources TEXT NOT NULL,
    made_at TEXT NOT NULL,
    paired_at TEXT,
    revoked_at TEXT,
    code TEXT,
    code_ends_at TEXT
) STRICT;
CREATE UNIQUE INDEX screen_name ON screen (name) WHERE revoked_at IS NULL;
CREATE TABLE api_token (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    digest TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL,
    sources TEXT NOT NULL,
    made_at TEXT NOT NULL,
    used_at TEXT,
    ends_at TEXT,
    revoked_at TEXT
) STRICT;
CREATE TABLE session (
    digest TEXT PRIMARY KEY,
    account_id INTEGER REFERENCES account (id),
    screen_id INTEGER REFERENCES screen (id),
    made_at TEXT NOT NULL,
    seen_at TEXT NOT NULL,
    proved_at TEXT NOT NULL
) WITHOUT ROWID, STRICT;
CREATE INDEX session_account ON session (account_id);
ALTER TABLE delivery ADD COLUMN identity TEXT NOT NULL DEFAULT '';
ALTER TABLE delivery ADD COLUMN rejected_by INTEGER;
ALTER TABLE delivery ADD COLUMN forgotten_at TEXT;
CREATE TABLE destination_state (
    destination TEXT PRIMARY KEY,
    paused_at TEXT,
    paused_by TEXT NOT NULL DEFAULT '',
    paused_why TEXT NOT NULL DEFAULT '',
    tested_at TEXT,
    test_ok INTEGER,
    test_ms REAL,
    test_words TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID, STRICT;
CREATE TABLE health_sample (
    span TEXT NOT NULL,
    at TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (span, at)
) WITHOUT ROWID, STRICT;
CREATE TABLE setup_step (
    step TEXT PRIMARY KEY,
    done_at TEXT NOT NULL,
    actor TEXT NOT NULL,
    detail TEXT NOT NULL
) WITHOUT ROWID, STRICT;
ALTER TABLE alert ADD COLUMN communicated_at TEXT;
ALTER TABLE alert ADD COLUMN decided_at TEXT;
ALTER TABLE alert ADD COLUMN decided_by TEXT;
ALTER TABLE alert ADD COLUMN decision TEXT;
CREATE INDEX alert_raised ON alert (raised_at);
CREATE INDEX study_patient ON study (patient_key);
CREATE TABLE escalation (
    alert_id INTEGER NOT NULL REFERENCES alert (id),
    step TEXT NOT NULL,
    at TEXT NOT NULL,
    PRIMARY KEY (alert_id, step)
) WITHOUT ROWID, STRICT;
CREATE TABLE test_alert (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    source TEXT NOT NULL,
    raised_at TEXT NOT NULL,
    raised_by TEXT NOT NULL,
    presented_at TEXT,
    ended_at TEXT,
    acknowledged_by TEXT
) STRICT;
CREATE TABLE alert_notice (
    id INTEGER PRIMARY KEY,
    sink TEXT NOT NULL,
    alert_id INTEGER REFERENCES alert (id),
    test_id INTEGER REFERENCES test_alert (id),
    step TEXT NOT NULL,
    state TEXT NOT NULL,
    owed_at TEXT NOT NULL,
    next_at TEXT NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    told_at TEXT,
    error TEXT NOT NULL DEFAULT '',
    UNIQUE (sink, alert_id, step),
    UNIQUE (sink, test_id, step)
) STRICT;
CREATE TABLE communication (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    alert_id INTEGER NOT NULL,
    study_id INTEGER NOT NULL,
    source TEXT NOT NULL,
    identity TEXT NOT NULL,
    age TEXT NOT NULL,
    exam TEXT NOT NULL,
    category INTEGER NOT NULL,
    findings TEXT NOT NULL,
    titles TEXT NOT NULL,
    found_at TEXT NOT NULL,
    told_by TEXT NOT NULL,
    received_by TEXT NOT NULL,
    received_at TEXT NOT NULL,
    method TEXT NOT NULL,
    read_back INTEGER NOT NULL,
    evaluation INTEGER NOT NULL,
    recorded_at TEXT NOT NULL
) STRICT;
CREATE INDEX test_alert_open ON test_alert (id) WHERE ended_at IS NULL;
CREATE INDEX alert_notice_owed ON alert_notice (sink, id) WHERE state = 'owed';
CREATE INDEX alert_notice_alert ON alert_notice (alert_id);
CREATE INDEX communication_received ON communication (received_at);
CREATE INDEX communication_alert ON communication (alert_id);
CREATE TABLE review (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    study_id INTEGER NOT NULL REFERENCES study (id),
    version INTEGER NOT NULL,
    predecessor INTEGER REFERENCES review (id),
    decision TEXT NOT NULL,
    reason TEXT,
    note TEXT NOT NULL,
    basis TEXT NOT NULL,
    seen TEXT NOT NULL,
    opinion TEXT NOT NULL,
    signed_at TEXT NOT NULL,
    signed_by TEXT NOT NULL,
    role TEXT NOT NULL,
    organization TEXT NOT NULL,
    counts INTEGER NOT NULL DEFAULT 1,
    UNIQUE (study_id, version)
) STRICT;
CREATE TABLE review_finding (
    review_id INTEGER NOT NULL REFERENCES review (id),
    n INTEGER NOT NULL,
    analysis_id INTEGER NOT NULL REFERENCES analysis (id),
    finding TEXT NOT NULL,
    presence TEXT NOT NULL,
    flagged INTEGER NOT NULL,
    is_right INTEGER,
    added INTEGER NOT NULL,
    code TEXT NOT NULL,
    side TEXT,
    category INTEGER,
    region TEXT,
    PRIMARY KEY (review_id, n)
) WITHOUT ROWID, STRICT;
CREATE INDEX review_finding_analysis ON review_finding (analysis_id);
CREATE INDEX review_signed ON review (signed_at);
CREATE TABLE review_request (
    study_id INTEGER PRIMARY KEY REFERENCES study (id),
    asked_at TEXT NOT NULL,
    asked_by TEXT NOT NULL,
    done_at TEXT
) STRICT;
CREATE INDEX review_request_open ON review_request (asked_at) WHERE done_at IS NULL;
CREATE TABLE review_sample (
    study_id INTEGER PRIMARY KEY REFERENCES study (id),
    chosen_at TEXT NOT NULL,
    share REAL NOT NULL,
    done_at TEXT
) STRICT;
CREATE INDEX review_sample_open ON review_sample (chosen_at) WHERE done_at IS NULL;
CREATE INDEX alert_undecided ON alert (raised_at) WHERE decided_at IS NULL AND state <> 'withdrawn';
CREATE INDEX analysis_counted ON analysis (done_at)
 WHERE role = 'live' AND superseded_by IS NULL AND outcome IN ('FINDING', 'NOTHING_FLAGGED');
CREATE INDEX journal_built ON journal (study_id) WHERE kind = 'delivery_built';
CREATE INDEX analysis_timing ON analysis (package, done_at) WHERE role = 'live';
"""

_FIVE = """
ALTER TABLE issue ADD COLUMN acknowledged_at TEXT;
ALTER TABLE issue ADD COLUMN acknowledged_by TEXT;
ALTER TABLE issue ADD COLUMN shelved_until TEXT;
CREATE TABLE fleet_state (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID, STRICT;
CREATE TABLE fleet_batch (
    id TEXT PRIMARY KEY,
    first_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    made_at TEXT NOT NULL
) WITHOUT ROWID, STRICT;
CREATE TABLE fleet_job (
    id TEXT PRIMARY KEY,
    ctr INTEGER NOT NULL UNIQUE,
    op TEXT NOT NULL,
    envelope BLOB NOT NULL,
    state TEXT NOT NULL,
    version INTEGER NOT NULL,
    code TEXT NOT NULL DEFAULT '',
    figures TEXT NOT NULL DEFAULT '{}',
    received_at TEXT NOT NULL,
    state_at TEXT NOT NULL,
    approved_by TEXT NOT NULL DEFAULT '',
    work TEXT NOT NULL DEFAULT '{}'
) WITHOUT ROWID, STRICT;
CREATE INDEX fleet_job_open ON fleet_job (ctr) WHERE state NOT IN
 ('SUCCEEDED', 'FAILED', 'ROLLED_BACK', 'REJECTED', 'CANCELED', 'TIMED_OUT', 'REMOVED', 'ALREADY_INSTALLED');
CREATE TABLE equipment (
    source TEXT NOT NULL,
    modality TEXT NOT NULL,
    make TEXT NOT NULL,
    model TEXT NOT NULL,
    kernel TEXT NOT NULL,
    series INTEGER NOT NULL,
    days INTEGER NOT NULL DEFAULT 1,
    last_at TEXT NOT NULL,
    PRIMARY KEY (source, modality, make, model, kernel)
) WITHOUT ROWID, STRICT;
"""

#: Schema 1 is the first; ``schema.sql`` always writes the newest. A test holds both against each other.
MIGRATIONS: dict[int, str] = {1: _TWO, 2: _THREE, 3: _FOUR, 4: _FIVE}

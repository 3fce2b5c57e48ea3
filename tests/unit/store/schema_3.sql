-- Schema 3 of the appliance's database. The only durable state besides the spool of files.
-- Times are ISO 8601 UTC text with microseconds; *_mono are seconds of the boot named beside them; JSON is text.

CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;

-- The append-only journal (DESIGN §5). hash = SHA-256 over the previous hash and this row. Local ids only:
-- no patient text and no DICOM UID, so that rows outlive retention.
CREATE TABLE journal (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL,
    mono_ms INTEGER NOT NULL,
    boot TEXT NOT NULL,
    kind TEXT NOT NULL,
    study_id INTEGER,
    subject TEXT NOT NULL DEFAULT '',
    actor TEXT NOT NULL,
    body TEXT NOT NULL,
    hash TEXT NOT NULL
) STRICT;
CREATE INDEX journal_study ON journal (study_id, seq);

-- Where each reader of the journal stands.
CREATE TABLE cursor (reader TEXT PRIMARY KEY, seq INTEGER NOT NULL) STRICT;

CREATE TABLE association (
    id INTEGER PRIMARY KEY,
    source TEXT NOT NULL,
    calling_ae TEXT NOT NULL,
    called_ae TEXT NOT NULL,
    address TEXT NOT NULL,
    opened_at TEXT NOT NULL,
    closed_at TEXT,
    how TEXT,                       -- released | aborted | lost; NULL while open
    images INTEGER NOT NULL DEFAULT 0,
    can_store INTEGER NOT NULL DEFAULT 1  -- 0: none of its contexts is of images, so it holds no series back
) STRICT;
CREATE INDEX association_open ON association (source) WHERE how IS NULL;

-- What a source has taught the box: gaps between its images, protocol names seen.
CREATE TABLE source_fact (
    source TEXT NOT NULL,
    fact TEXT NOT NULL,             -- gap_ms | protocol
    value TEXT NOT NULL,
    count INTEGER NOT NULL DEFAULT 1,
    last_at TEXT NOT NULL,
    PRIMARY KEY (source, fact, value)
) STRICT;

-- One patient's images under one Study Instance UID. Equal UIDs with another patient key are two rows and an issue.
-- Ids are never used twice: the journal names them after the rows are gone, and a rebuilt database goes on counting.
CREATE TABLE study (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    study_instance_uid TEXT NOT NULL,
    source TEXT NOT NULL,
    patient_key TEXT NOT NULL,      -- JSON list, Identity.patient_key
    identity TEXT NOT NULL,         -- JSON of records.Identity
    identity_revision INTEGER NOT NULL DEFAULT 1,
    description TEXT NOT NULL DEFAULT '',
    study_date TEXT NOT NULL DEFAULT '',
    study_time TEXT NOT NULL DEFAULT '',
    stat INTEGER NOT NULL DEFAULT 0,
    first_at TEXT NOT NULL,
    last_at TEXT NOT NULL,
    images INTEGER NOT NULL DEFAULT 0,
    outcome TEXT,                   -- NULL while open
    reason TEXT,
    outcome_at TEXT,
    worker_deaths INTEGER NOT NULL DEFAULT 0,
    kept INTEGER NOT NULL DEFAULT 1,      -- 0: no file of its images is left here
    images_removed_at TEXT          -- when retention last took image files of it away; the rows stay
) STRICT;
CREATE INDEX study_uid ON study (study_instance_uid);
CREATE INDEX study_last ON study (last_at);
CREATE INDEX study_kept ON study (last_at) WHERE kept = 1;

CREATE TABLE series (
    id INTEGER PRIMARY KEY,
    study_id INTEGER NOT NULL REFERENCES study (id),
    series_instance_uid TEXT NOT NULL,
    sop_class_uid TEXT NOT NULL,
    modality TEXT NOT NULL,
    number INTEGER,
    description TEXT NOT NULL DEFAULT '',
    protocol_name TEXT NOT NULL DEFAULT '',
    body_part TEXT NOT NULL DEFAULT '',
    header TEXT NOT NULL,           -- JSON of the first instance's records.Header
    revision INTEGER NOT NULL DEFAULT 0,  -- the last READY one; 0 = none yet
    open INTEGER NOT NULL DEFAULT 1,      -- images arrived that no revision holds
    changed_at TEXT NOT NULL,
    changed_mono REAL NOT NULL,
    boot TEXT NOT NULL,
    left_out TEXT,                  -- why routing left the series out: localizer, dose report, not selected, ...
    UNIQUE (study_id, series_instance_uid)
) STRICT;
CREATE INDEX series_open ON series (open) WHERE open = 1;

CREATE TABLE instance (
    id INTEGER PRIMARY KEY,
    sop_instance_uid TEXT NOT NULL UNIQUE,
    series_id INTEGER NOT NULL REFERENCES series (id),
    version_id INTEGER              -- the CURRENT version
) STRICT;
CREATE INDEX instance_series ON instance (series_id);

-- Every distinct data set that came under one SOP Instance UID. Nothing is overwritten.
CREATE TABLE version (
    id INTEGER PRIMARY KEY,
    instance_id INTEGER NOT NULL REFERENCES instance (id),
    n INTEGER NOT NULL,
    state TEXT NOT NULL,            -- records.VersionState
    path TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    data_sha256 TEXT NOT NULL,
    transfer_syntax_uid TEXT NOT NULL,
    meaning_digest TEXT NOT NULL,
    identity TEXT NOT NULL,
    association_id INTEGER NOT NULL,
    source TEXT NOT NULL,
    instance_number INTEGER,
    position TEXT,                  -- JSON [x, y, z]
    orientation TEXT,               -- JSON of six numbers
    received_at TEXT NOT NULL,
    received_mono REAL NOT NULL,
    exposure_index REAL,            -- these three of projection images whose header has them
    target_exposure_index REAL,
    deviation_index REAL,
    removed_at TEXT,                -- its file is gone from this box
    pixel_sha256 TEXT,              -- of its pixel data, kept when the file goes, so that a correction is still told
    UNIQUE (instance_id, n)
) STRICT;
CREATE INDEX version_association ON version (association_id);
CREATE INDEX version_comparing ON version (id) WHERE state = 'comparing';

-- What a series consisted of when it was taken as whole.
CREATE TABLE revision (
    id INTEGER PRIMARY KEY,
    series_id INTEGER NOT NULL REFERENCES series (id),
    n INTEGER NOT NULL,
    images INTEGER NOT NULL,
    evidence TEXT NOT NULL,         -- JSON: which rule of completeness, with its facts
    ready_at TEXT NOT NULL,
    ready_mono REAL NOT NULL,
    last_image_mono REAL NOT NULL,
    boot TEXT NOT NULL,
    routed INTEGER NOT NULL DEFAULT 0,  -- 0: not yet; 1: routed; 2: a package was replaced, look for what is missing
    rejected TEXT,                  -- records.RejectionTitle of a note that takes back an image of it
    UNIQUE (series_id, n)
) STRICT;
CREATE INDEX revision_unrouted ON revision (routed) WHERE routed <> 1;
CREATE TABLE revision_version (
    revision_id INTEGER NOT NULL REFERENCES revision (id),
    version_id INTEGER NOT NULL REFERENCES version (id),
    PRIMARY KEY (revision_id, version_id)
) WITHOUT ROWID, STRICT;

-- One package on the series revisions that it takes.
CREATE TABLE analysis (
    id INTEGER PRIMARY KEY,
    study_id INTEGER NOT NULL REFERENCES study (id),
    package TEXT NOT NULL,
    package_version TEXT NOT NULL,
    role TEXT NOT NULL,
    state TEXT NOT NULL,            -- records.AnalysisState
    category INTEGER NOT NULL,      -- most urgent among the package's findings, 1-3
    notify TEXT NOT NULL,           -- active | passive
    intended_use TEXT NOT NULL,     -- triage | detection | measurement | quality
    stat INTEGER NOT NULL DEFAULT 0,
    attempt INTEGER NOT NULL DEFAULT 0,
    ready_at TEXT NOT NULL,
    ready_mono REAL NOT NULL,
    boot TEXT NOT NULL,
    deadline_s REAL NOT NULL,
    started_at TEXT,
    done_at TEXT,
    outcome TEXT,
    reason TEXT,
    result TEXT,                    -- JSON of records.AnalysisResult
    late INTEGER NOT NULL DEFAULT 0,      -- ended after its deadline, or as backlog: never chimes
    superseded_by INTEGER REFERENCES analysis (id),
    predecessor INTEGER REFERENCES analysis (id),
    identity_revision INTEGER NOT NULL DEFAULT 1,
    files_removed_at TEXT           -- its pictures, masks and result objects are gone from this box
) STRICT;
CREATE INDEX analysis_files ON analysis (done_at) WHERE files_removed_at IS NULL;
-- SQLite takes this one only for queries that say state <> 'done' in these words.
CREATE INDEX analysis_open ON analysis (state) WHERE state <> 'done';
CREATE INDEX analysis_study ON analysis (study_id);
CREATE TABLE analysis_input (
    analysis_id INTEGER NOT NULL REFERENCES analysis (id),
    role TEXT NOT NULL,
    revision_id INTEGER NOT NULL REFERENCES revision (id),
    PRIMARY KEY (analysis_id, role)
) WITHOUT ROWID, STRICT;

-- What a person did about the quality warnings of an analysis; without a row they are open.
CREATE TABLE quality_choice (
    analysis_id INTEGER PRIMARY KEY REFERENCES analysis (id),
    choice TEXT NOT NULL,           -- records.QualityChoice
    reason TEXT NOT NULL,           -- records.QualityReason
    decided_at TEXT NOT NULL,
    decided_by TEXT NOT NULL
) STRICT;

-- What a person is shown: one open alert per study.
CREATE TABLE alert (
    id INTEGER PRIMARY KEY,
    study_id INTEGER NOT NULL REFERENCES study (id),
    analysis_id INTEGER NOT NULL REFERENCES analysis (id),
    state TEXT NOT NULL,            -- records.AlertState
    category INTEGER NOT NULL,
    active INTEGER NOT NULL,        -- notify: active; passive alerts never chime
    chime INTEGER NOT NULL,         -- 0 for passive, late and recovered ones
    findings TEXT NOT NULL,         -- JSON list of {package, finding, category}, most urgent first
    identity_revision INTEGER NOT NULL,
    raised_at TEXT NOT NULL,
    presented_at TEXT,
    acknowledged_at TEXT,
    acknowledged_by TEXT,
    withdrawn_at TEXT,
    withdrawn_why TEXT,
    predecessor INTEGER REFERENCES alert (id)
) STRICT;
CREATE INDEX alert_study ON alert (study_id);
CREATE INDEX alert_open ON alert (state) WHERE state IN ('raised', 'presented');

-- One object owed to one destination.
CREATE TABLE delivery (
    id INTEGER PRIMARY KEY,
    destination TEXT NOT NULL,
    kind TEXT NOT NULL,             -- records.DeliveryKind
    study_id INTEGER NOT NULL REFERENCES study (id),
    analysis_id INTEGER REFERENCES analysis (id),
    version_id INTEGER REFERENCES version (id),
    sop_instance_uid TEXT NOT NULL,
    sop_class_uid TEXT NOT NULL DEFAULT '',
    transfer_syntax_uid TEXT NOT NULL DEFAULT '',
    path TEXT,                      -- NULL until the object is built
    sha256 TEXT,
    calling_ae TEXT NOT NULL DEFAULT '',
    state TEXT NOT NULL,            -- records.DeliveryState
    attempt INTEGER NOT NULL DEFAULT 0,
    next_at TEXT NOT NULL,
    owed_at TEXT NOT NULL,
    sent_at TEXT,
    status INTEGER,                 -- last DIMSE status
    error TEXT NOT NULL DEFAULT '',
    identity_revision INTEGER NOT NULL DEFAULT 1,   -- of the study, that a result is built under
    study_instance_uid TEXT NOT NULL DEFAULT '',    -- that a result was built under
    committed_at TEXT,              -- when the destination answered that it keeps the object for good
    commit_tries INTEGER NOT NULL DEFAULT 0,        -- how often it was asked
    commit_next_at TEXT NOT NULL DEFAULT '',        -- it is not asked (again) before
    commit_reason INTEGER,          -- last Failure Reason (0008,1197)
    removed_at TEXT,                -- the file is gone from this box
    UNIQUE (destination, sop_instance_uid, version_id)
) STRICT;
CREATE INDEX delivery_uncommitted ON delivery (destination, commit_next_at)
 WHERE state = 'sent' AND committed_at IS NULL AND removed_at IS NULL;
CREATE INDEX delivery_path ON delivery (path) WHERE kind <> 'original';
CREATE INDEX delivery_open ON delivery (destination, state, id) WHERE state <> 'sent';
CREATE INDEX delivery_analysis ON delivery (analysis_id);
CREATE INDEX delivery_study ON delivery (study_id);

-- What we asked destinations to commit to (PS3.4 Annex J), one row a transaction: any answer counts, however late.
CREATE TABLE commitment (
    id INTEGER PRIMARY KEY,
    destination TEXT NOT NULL,
    transaction_uid TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,            -- asking: not known whether the request arrived | asked | refused | answered
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

-- What scanners asked us to commit to, and what they have not been told yet.
CREATE TABLE commitment_request (
    id INTEGER PRIMARY KEY,
    source TEXT NOT NULL,
    transaction_uid TEXT NOT NULL,
    calling_ae TEXT NOT NULL,       -- the scanner's
    called_ae TEXT NOT NULL,        -- that it called: the report goes out under it
    state TEXT NOT NULL,            -- waiting | reported
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
    reason INTEGER,                 -- NULL: not decided yet; 0: committed; else the Failure Reason that is told
    PRIMARY KEY (request_id, sop_instance_uid)
) WITHOUT ROWID, STRICT;

CREATE TABLE issue (
    id INTEGER PRIMARY KEY,
    code TEXT NOT NULL,
    subject TEXT NOT NULL,
    severity TEXT NOT NULL,
    study_id INTEGER,
    since_at TEXT NOT NULL,
    detail TEXT NOT NULL,
    cleared_at TEXT
) STRICT;
CREATE UNIQUE INDEX issue_open ON issue (code, subject) WHERE cleared_at IS NULL;

-- Every version of a package that the box has known; its claims and texts outlive its folder. A name has two slots: the
-- version that serves and one other.
CREATE TABLE package (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    origin TEXT NOT NULL,           -- config: came with this software, the configuration names it; installed: by an act
    folder TEXT NOT NULL DEFAULT '',      -- below the folder of packages; empty where it came with this software
    manifest TEXT NOT NULL,         -- its model.yaml
    state TEXT NOT NULL,            -- packages.PackageState
    state_at TEXT NOT NULL,
    was TEXT NOT NULL DEFAULT '',         -- of a withdrawn one: its state before
    why TEXT NOT NULL DEFAULT '',         -- what the person said at the last act
    chosen INTEGER NOT NULL DEFAULT 1,    -- 0: the configuration names it no longer
    choice TEXT NOT NULL DEFAULT '',      -- JSON: role and operating points as the configuration gave them last
    live_after_days REAL,           -- what its silent time must reach, from state_at; NULL: it stays silent
    live_after_studies INTEGER,
    signed_by TEXT NOT NULL DEFAULT '[]', -- JSON list of key ids
    p95_ms REAL,                    -- of its golden cases when it was installed here
    installed_at TEXT NOT NULL,
    UNIQUE (name, version, digest)
) STRICT;

-- Where a site has picked another operating point than the package's default.
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

-- What rejection notes named (IHE IOCM), whether it is here yet or not. The first note that names an instance counts.
CREATE TABLE rejected_instance (
    sop_instance_uid TEXT PRIMARY KEY,
    title TEXT NOT NULL,            -- records.RejectionTitle
    version_id INTEGER NOT NULL,    -- of the note
    rejected_at TEXT NOT NULL
) WITHOUT ROWID, STRICT;

-- Performed procedure steps that modalities report (PS3.4 Annex F), and the images that each lists.
CREATE TABLE performed_step (
    id INTEGER PRIMARY KEY,
    sop_instance_uid TEXT NOT NULL UNIQUE,
    source TEXT NOT NULL,
    state TEXT NOT NULL,            -- records.StepState
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

-- What the RIS said of the order of a study (modality worklist).
CREATE TABLE study_order (
    study_id INTEGER PRIMARY KEY REFERENCES study (id),
    state TEXT NOT NULL,            -- records.OrderState
    asked INTEGER NOT NULL,         -- how often
    asked_at TEXT NOT NULL,
    next_at TEXT,                   -- NULL: it is not asked again
    identity_revision INTEGER NOT NULL,   -- of the study, that it was asked about
    priority TEXT NOT NULL DEFAULT '',
    procedure_id TEXT NOT NULL DEFAULT '',
    procedure_description TEXT NOT NULL DEFAULT '',
    accession_number TEXT NOT NULL DEFAULT ''     -- that results carry because the images have none
) STRICT;

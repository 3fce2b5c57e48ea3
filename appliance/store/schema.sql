-- Schema 4 of the appliance's database. The only durable state besides the spool of files.
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
CREATE INDEX journal_built ON journal (study_id) WHERE kind = 'delivery_built';

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
CREATE INDEX study_patient ON study (patient_key);
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
CREATE INDEX analysis_timing ON analysis (package, done_at) WHERE role = 'live';
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
    predecessor INTEGER REFERENCES alert (id),
    communicated_at TEXT,           -- first recorded; what was told stands in communication
    decided_at TEXT,
    decided_by TEXT,
    decision TEXT                   -- of the review: a code
) STRICT;
CREATE INDEX alert_study ON alert (study_id);
CREATE INDEX alert_open ON alert (state) WHERE state IN ('raised', 'presented');
CREATE INDEX alert_raised ON alert (raised_at);

-- What has happened about an alert that nobody acknowledged.
CREATE TABLE escalation (
    alert_id INTEGER NOT NULL REFERENCES alert (id),
    step TEXT NOT NULL,             -- records.AlertStep
    at TEXT NOT NULL,
    PRIMARY KEY (alert_id, step)
) WITHOUT ROWID, STRICT;

-- A trial whether alerts arrive. No study, no outcome, no statistics.
CREATE TABLE test_alert (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    source TEXT NOT NULL,           -- whose screens show it; empty: all
    raised_at TEXT NOT NULL,
    raised_by TEXT NOT NULL,
    presented_at TEXT,
    ended_at TEXT,
    acknowledged_by TEXT            -- NULL where its time ended it
) STRICT;
CREATE INDEX test_alert_open ON test_alert (id) WHERE ended_at IS NULL;

-- What a sink outside the screens (a webhook, a light) is told, one row a step.
CREATE TABLE alert_notice (
    id INTEGER PRIMARY KEY,
    sink TEXT NOT NULL,
    alert_id INTEGER REFERENCES alert (id),
    test_id INTEGER REFERENCES test_alert (id),
    step TEXT NOT NULL,             -- records.AlertStep
    state TEXT NOT NULL,            -- owed | told | given_up | void: it calls no longer, and the sink was never told
    owed_at TEXT NOT NULL,
    next_at TEXT NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    told_at TEXT,
    error TEXT NOT NULL DEFAULT '',
    UNIQUE (sink, alert_id, step),
    UNIQUE (sink, test_id, step)
) STRICT;
CREATE INDEX alert_notice_owed ON alert_notice (sink, id) WHERE state = 'owed';
CREATE INDEX alert_notice_alert ON alert_notice (alert_id);

-- The register of critical values: who was told what, when and how (ACR's six fields and the read-back). It keeps whose
-- finding it was as it was told; a rebuilt database carries it over.
CREATE TABLE communication (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    alert_id INTEGER NOT NULL,
    study_id INTEGER NOT NULL,
    source TEXT NOT NULL,
    identity TEXT NOT NULL,         -- JSON of records.Identity
    age TEXT NOT NULL,
    exam TEXT NOT NULL,
    category INTEGER NOT NULL,
    findings TEXT NOT NULL,         -- JSON list of {package, finding, category}
    titles TEXT NOT NULL,           -- JSON list of {en, zh_Hans}, as they were told
    found_at TEXT NOT NULL,
    told_by TEXT NOT NULL,
    received_by TEXT NOT NULL,
    received_at TEXT NOT NULL,
    method TEXT NOT NULL,           -- records.CommunicationMethod
    read_back INTEGER NOT NULL,
    evaluation INTEGER NOT NULL,    -- recorded while site.mode was evaluation
    recorded_at TEXT NOT NULL
) STRICT;
CREATE INDEX communication_received ON communication (received_at);
CREATE INDEX communication_alert ON communication (alert_id);

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
    removed_at TEXT,                -- the file is gone from this box, or goes since nothing needs it
    identity TEXT NOT NULL DEFAULT '',              -- JSON of records.Identity that a result was built under
    rejected_by INTEGER,            -- delivery of the rejection note that names it; 0: none yet; NULL: none is wanted
    forgotten_at TEXT,              -- when a person gave up its destination: it is owed, and committed to, no more
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
    cleared_at TEXT,
    acknowledged_at TEXT,
    acknowledged_by TEXT,
    shelved_until TEXT              -- until then it is listed and not told anew
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

-- Who may use the screens. A password is kept as its Argon2id hash; without one the account signs in elsewhere (OIDC).
CREATE TABLE account (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE COLLATE NOCASE,
    full_name TEXT NOT NULL,
    role TEXT NOT NULL,             -- records.UserRole, never screen
    password TEXT,
    must_change INTEGER NOT NULL DEFAULT 0,   -- the password was given by somebody else
    subject TEXT UNIQUE,            -- issuer and subject of an OIDC identity
    is_active INTEGER NOT NULL DEFAULT 1,
    made_at TEXT NOT NULL
) STRICT;

-- A screen at a scanner, paired once by a code. It shows the alerts of its sources alone.
CREATE TABLE screen (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    sources TEXT NOT NULL,          -- JSON list of source names; empty: all
    made_at TEXT NOT NULL,
    paired_at TEXT,
    revoked_at TEXT,
    code TEXT,                      -- SHA-256 of the code that pairs it; NULL once it is used
    code_ends_at TEXT
) STRICT;
CREATE UNIQUE INDEX screen_name ON screen (name) WHERE revoked_at IS NULL;

-- A program that may ask the API: a scanner's console. It has a role and, as a screen, its sources.
CREATE TABLE api_token (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    digest TEXT NOT NULL UNIQUE,    -- SHA-256 of the token
    role TEXT NOT NULL,
    sources TEXT NOT NULL,
    made_at TEXT NOT NULL,
    used_at TEXT,
    ends_at TEXT,
    revoked_at TEXT
) STRICT;

-- Who is signed in where: one row a browser, of a person or a paired screen.
CREATE TABLE session (
    digest TEXT PRIMARY KEY,        -- SHA-256 of the cookie
    account_id INTEGER REFERENCES account (id),
    screen_id INTEGER REFERENCES screen (id),
    made_at TEXT NOT NULL,
    seen_at TEXT NOT NULL,
    proved_at TEXT NOT NULL         -- when the password was last given; signing a review asks again after a while
) WITHOUT ROWID, STRICT;
CREATE INDEX session_account ON session (account_id);

-- What people did about a destination, and how its last test ended.
CREATE TABLE destination_state (
    destination TEXT PRIMARY KEY,
    paused_at TEXT,                 -- NULL: it is not paused
    paused_by TEXT NOT NULL DEFAULT '',
    paused_why TEXT NOT NULL DEFAULT '',
    tested_at TEXT,
    test_ok INTEGER,
    test_ms REAL,
    test_words TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID, STRICT;

-- How the box fared: a row a minute for two days, a row an hour for a month.
CREATE TABLE health_sample (
    span TEXT NOT NULL,             -- minute | hour
    at TEXT NOT NULL,               -- its begin
    body TEXT NOT NULL,             -- JSON of health_samples.Sample
    PRIMARY KEY (span, at)
) WITHOUT ROWID, STRICT;

-- How far the set-up is; a step that is done again writes its row anew.
CREATE TABLE setup_step (
    step TEXT PRIMARY KEY,
    done_at TEXT NOT NULL,
    actor TEXT NOT NULL,
    detail TEXT NOT NULL            -- JSON: codes and numbers for the acceptance sheet
) WITHOUT ROWID, STRICT;

-- What radiologists signed of studies, one row a version; nothing is overwritten.
CREATE TABLE review (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    study_id INTEGER NOT NULL REFERENCES study (id),
    version INTEGER NOT NULL,       -- 1, 2, ... of the study
    predecessor INTEGER REFERENCES review (id),
    decision TEXT NOT NULL,         -- records.ReviewDecision
    reason TEXT,                    -- records.ReviewReason
    note TEXT NOT NULL,             -- the person's own words; may name a patient, so the journal never holds them
    basis TEXT NOT NULL,            -- JSON list of the analyses that were judged
    seen TEXT NOT NULL,             -- JSON, series id: how many of its images the page showed before
    opinion TEXT NOT NULL,          -- what was entered before the AI's result was shown; empty: read with it
    signed_at TEXT NOT NULL,
    signed_by TEXT NOT NULL,
    role TEXT NOT NULL,
    organization TEXT NOT NULL,
    counts INTEGER NOT NULL DEFAULT 1,    -- 0: by a test account; in no figure and no label
    UNIQUE (study_id, version)
) STRICT;
CREATE TABLE review_finding (
    review_id INTEGER NOT NULL REFERENCES review (id),
    n INTEGER NOT NULL,
    analysis_id INTEGER NOT NULL REFERENCES analysis (id),
    finding TEXT NOT NULL,          -- of the package; empty where code is none of its
    presence TEXT NOT NULL,         -- records.Presence
    flagged INTEGER NOT NULL,       -- by the package
    is_right INTEGER,               -- whether what the package said stands; NULL: not known
    added INTEGER NOT NULL,         -- by the person
    code TEXT NOT NULL,             -- name in codes.yaml
    side TEXT,                      -- records.Side
    category INTEGER,
    region TEXT,                    -- JSON of records.Region
    PRIMARY KEY (review_id, n)
) WITHOUT ROWID, STRICT;
CREATE INDEX review_finding_analysis ON review_finding (analysis_id);
CREATE INDEX review_signed ON review (signed_at);

-- Studies that somebody wants a radiologist's word on.
CREATE TABLE review_request (
    study_id INTEGER PRIMARY KEY REFERENCES study (id),
    asked_at TEXT NOT NULL,
    asked_by TEXT NOT NULL,
    done_at TEXT
) STRICT;
CREATE INDEX review_request_open ON review_request (asked_at) WHERE done_at IS NULL;

-- Studies with nothing flagged that chance chose for review, so that misses are counted.
CREATE TABLE review_sample (
    study_id INTEGER PRIMARY KEY REFERENCES study (id),
    chosen_at TEXT NOT NULL,
    share REAL NOT NULL,            -- of such studies that were chosen then
    done_at TEXT
) STRICT;
CREATE INDEX review_sample_open ON review_sample (chosen_at) WHERE done_at IS NULL;
CREATE INDEX alert_undecided ON alert (raised_at) WHERE decided_at IS NULL AND state <> 'withdrawn';
CREATE INDEX analysis_counted ON analysis (done_at)
 WHERE role = 'live' AND superseded_by IS NULL AND outcome IN ('FINDING', 'NOTHING_FLAGGED');

-- The fleet link (appliance/fleet/device). Its cursor is the row 'fleet' of cursor; what it is told and what it must
-- not count anew stand here by name.
CREATE TABLE fleet_state (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID, STRICT;

-- Rows of the journal on their way: first to last, the same ones until the server has committed them.
CREATE TABLE fleet_batch (
    id TEXT PRIMARY KEY,            -- ULID
    first_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    made_at TEXT NOT NULL
) WITHOUT ROWID, STRICT;

-- Jobs that the server gave, for a year; ctr rises for ever.
CREATE TABLE fleet_job (
    id TEXT PRIMARY KEY,            -- ULID
    ctr INTEGER NOT NULL UNIQUE,
    op TEXT NOT NULL,
    envelope BLOB NOT NULL,         -- DSSE, as it came
    state TEXT NOT NULL,
    version INTEGER NOT NULL,       -- counts the steps
    code TEXT NOT NULL DEFAULT '',
    figures TEXT NOT NULL DEFAULT '{}',
    received_at TEXT NOT NULL,
    state_at TEXT NOT NULL,
    approved_by TEXT NOT NULL DEFAULT '',
    work TEXT NOT NULL DEFAULT '{}' -- JSON: what the present step has noted for itself
) WITHOUT ROWID, STRICT;
CREATE INDEX fleet_job_open ON fleet_job (ctr) WHERE state NOT IN
 ('SUCCEEDED', 'FAILED', 'ROLLED_BACK', 'REJECTED', 'CANCELED', 'TIMED_OUT', 'REMOVED', 'ALREADY_INSTALLED');

-- What the images of a source say that made them, counted; no serial number, no station.
CREATE TABLE equipment (
    source TEXT NOT NULL,
    modality TEXT NOT NULL,
    make TEXT NOT NULL,
    model TEXT NOT NULL,
    kernel TEXT NOT NULL,
    series INTEGER NOT NULL,
    days INTEGER NOT NULL DEFAULT 1,      -- on which one came
    last_at TEXT NOT NULL,
    PRIMARY KEY (source, modality, make, model, kernel)
) WITHOUT ROWID, STRICT;

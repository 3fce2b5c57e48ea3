"""Every table of the fleet server, for SQLite and PostgreSQL alike. ``migrations`` makes them; a test compares the two.

Three rules. What a box is told or tells is keyed by its device id, which is unique over all tenants. A row that says
how something is now (``*_state``, ``equipment``) names the record it comes from by ``stream`` (the number of a stream,
which rises with every new database of a box) and ``seq``, and only a later one changes it. No row holds anything about
a patient: ``fleet.wire_records`` has no field for it.

An index that lists filter by has the device in it: without statistics SQLite takes the one of which it knows the most
columns, and would else walk all boxes of a make for each box of a list (measured: 2.6 s against 3 ms).
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeDecorator


class Utc(TypeDecorator[datetime]):
    """An aware moment, UTC in and out. SQLite keeps none of the zone, so it is taken off and put on here."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Take an aware moment to UTC; a naive one is a bug."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment without a zone")
        moment = value.astimezone(timezone.utc)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give it back aware."""
        if value is None:
            return None
        return value.replace(tzinfo=timezone.utc) if dialect.name == "sqlite" else value.astimezone(timezone.utc)


#: Rising numbers: 64 bit, except that SQLite counts only what it calls INTEGER (which has 64 bit there).
Number = BigInteger().with_variant(Integer, "sqlite")
Document = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")

METADATA = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s",
        "uq": "%(table_name)s_%(column_0_N_name)s_once",
        "ck": "%(table_name)s_%(constraint_name)s",
        "fk": "%(table_name)s_%(column_0_N_name)s_known",
        "pk": "%(table_name)s_key",
    }
)


def _of_device(*, key: bool = False) -> Column[Any]:
    return Column("device", Text, ForeignKey("device.id"), primary_key=key, nullable=False)


def _from_record() -> tuple[Column[Any], Column[Any]]:
    return Column("stream", BigInteger, nullable=False), Column("seq", BigInteger, nullable=False)


# Who and where -------------------------------------------------------------------------------------------------------

#: ``path`` = ids from the root down to this one, each with a slash behind it: "platform1/dealer-02/hospital-003/".
#: A tenant sees what is at or below its own path, the platform (kind 'platform') everything.
tenant = Table(
    "tenant",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("parent", Text, ForeignKey("tenant.id")),
    Column("path", Text, nullable=False, unique=True),
    Column("made_at", Utc, nullable=False),
    CheckConstraint("kind IN ('platform', 'vendor', 'dealer', 'hospital')", name="kind"),
)

site = Table(
    "site",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, ForeignKey("tenant.id"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("zone", Text, nullable=False, server_default="UTC"),
    Column("country", Text, nullable=False, server_default=""),
    Column("made_at", Utc, nullable=False),
)

#: ``number`` is what people call a box. ``state`` is of the registry: enrolled, disabled or replaced; whether it is
#: online is in ``status``. ``tenant`` stands in its topics and is its site's.
device = Table(
    "device",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("number", Integer, nullable=False, unique=True),
    Column("tenant", Text, ForeignKey("tenant.id"), nullable=False),
    Column("site", Text, ForeignKey("site.id"), nullable=False, index=True),
    Column("serial", Text, nullable=False, index=True),
    Column("name", Text, nullable=False, server_default=""),
    Column("state", Text, nullable=False),
    Column("hardware", Text, nullable=False, server_default=""),
    Column("made_at", Utc, nullable=False),
    Column("disabled_at", Utc),
    Column("replaced_by", Text, ForeignKey("device.id")),
    CheckConstraint("state IN ('enrolled', 'disabled', 'replaced')", name="state"),
    Index("device_tenant_number", "tenant", "number"),
)

#: ``state``: trial (issued, not seen yet), current, superseded (a newer one was seen), revoked.
certificate = Table(
    "certificate",
    METADATA,
    Column("fingerprint", Text, primary_key=True),
    _of_device(),
    Column("serial", Text, nullable=False),
    Column("pem", Text, nullable=False),
    Column("not_before", Utc, nullable=False),
    Column("not_after", Utc, nullable=False),
    Column("state", Text, nullable=False),
    Column("made_at", Utc, nullable=False),
    Column("seen_at", Utc),
    Column("revoked_at", Utc),
    Index("certificate_device_state", "device", "state"),
    Index("certificate_state_not_after", "state", "not_after"),
    CheckConstraint("state IN ('trial', 'current', 'superseded', 'revoked')", name="state"),
)

#: ``digest`` = SHA-256 of the token, which stands nowhere. ``device`` = whom it made; ``replaces`` = for that box.
enrol_token = Table(
    "enrol_token",
    METADATA,
    Column("digest", Text, primary_key=True),
    Column("serial", Text, nullable=False),
    Column("tenant", Text, ForeignKey("tenant.id"), nullable=False),
    Column("site", Text, ForeignKey("site.id"), nullable=False),
    Column("replaces", Text, ForeignKey("device.id")),
    Column("made_at", Utc, nullable=False),
    Column("made_by", BigInteger),
    Column("expires_at", Utc, nullable=False),
    Column("used_at", Utc),
    Column("device", Text, ForeignKey("device.id")),
)

# What boxes say ------------------------------------------------------------------------------------------------------

#: One row for each database that a box ever had. ``top`` is the highest seq that is here. ``cursor`` is what the box
#: last said to be acknowledged, and ``floor`` what it had said the time before that: up to there nothing is missing.
#: ``pruned``: records up to there were here and are no more (``prune``); nobody asks for them again. ``stick``: the
#: last row of the box's journal when it wrote the newest file that was taken in by hand (``sticks``).
stream = Table(
    "stream",
    METADATA,
    Column("number", Number, primary_key=True, autoincrement=True),
    _of_device(),
    Column("stream", Text, nullable=False),
    Column("top", BigInteger, nullable=False, server_default="0"),
    Column("cursor", BigInteger, nullable=False, server_default="0"),
    Column("floor", BigInteger, nullable=False, server_default="0"),
    Column("first_at", Utc, nullable=False),
    Column("pruned", BigInteger, nullable=False, server_default="0"),
    Column("stick", BigInteger, nullable=False, server_default="0"),
    UniqueConstraint("device", "stream"),
    sqlite_autoincrement=True,
)

#: ``rx_at`` is the server's clock, ``ts`` the box's (UTC milliseconds), which orders and expires nothing.
record = Table(
    "record",
    METADATA,
    Column("device", Text, nullable=False),
    Column("stream", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("k", Text, nullable=False),
    Column("ts", BigInteger, nullable=False),
    Column("rx_at", Utc, nullable=False, index=True),
    Column("body", Document, nullable=False),
    PrimaryKeyConstraint("device", "stream", "seq"),
    sqlite_with_rowid=False,
)

#: ``since_at`` = online or offline since. ``due_at`` = when the third heartbeat in a row will have been missed: a box
#: that is online and past it is stale.
status = Table(
    "status",
    METADATA,
    _of_device(key=True),
    Column("online", Boolean, nullable=False),
    Column("why", Text, nullable=False, server_default=""),
    Column("sess", BigInteger, nullable=False),
    Column("stream", Text, nullable=False, server_default=""),
    Column("boot", Text, nullable=False, server_default=""),
    Column("agent", Text, nullable=False, server_default=""),
    Column("nonce", Text, nullable=False, server_default=""),
    Column("clk", Text, nullable=False, server_default="none"),
    Column("since_at", Utc, nullable=False),
    Column("last_seen_at", Utc, nullable=False),
    Column("due_at", Utc, nullable=False),
    Index("status_online_due_at", "online", "due_at"),
)

#: The newest ``up/health``; what lists filter and sort by stands beside the body.
health_now = Table(
    "health_now",
    METADATA,
    _of_device(key=True),
    Column("at", Utc, nullable=False),
    Column("sess", BigInteger, nullable=False),
    Column("mode", Text, nullable=False),
    Column("ai", Text, nullable=False),
    Column("skew_ms", BigInteger),
    Column("backlog_s", Float, nullable=False),
    Column("oldest_owed_s", Float, nullable=False),
    Column("cert_days", Float),
    Column("packages_hash", Text, nullable=False, server_default=""),
    Column("body", Document, nullable=False),
)

#: Five minutes of a box, for plots. ``at`` is the box's moment where its clock can be right, else the server's.
health_point = Table(
    "health_point",
    METADATA,
    Column("device", Text, nullable=False),
    Column("stream", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("at", Utc, nullable=False),
    Column("body", Document, nullable=False),
    PrimaryKeyConstraint("device", "stream", "seq"),
    Index("health_point_device_at", "device", "at"),
    sqlite_with_rowid=False,
)

#: Points that are too old to be kept one by one (``prune``): the mean of each figure over ``n`` of them.
health_hour = Table(
    "health_hour",
    METADATA,
    Column("device", Text, nullable=False),
    Column("hour", Utc, nullable=False, index=True),
    Column("n", Integer, nullable=False),
    Column("body", Document, nullable=False),
    PrimaryKeyConstraint("device", "hour"),
    sqlite_with_rowid=False,
)

results_hour = Table(
    "results_hour",
    METADATA,
    Column("device", Text, nullable=False),
    Column("package", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("hour", Utc, nullable=False, index=True),
    Column("hours", Integer, nullable=False),
    Column("n", BigInteger, nullable=False),
    Column("flagged", Document, nullable=False),
    Column("nothing_flagged", BigInteger, nullable=False),
    Column("not_analysed", Document, nullable=False),
    Column("suppressed", BigInteger, nullable=False),
    Column("reviewed", BigInteger, nullable=False),
    Column("agreed", BigInteger, nullable=False),
    Column("p50_ms", Float),
    Column("p95_ms", Float),
    Column("p99_ms", Float),
    Column("psi", Document, nullable=False),
    *_from_record(),
    PrimaryKeyConstraint("device", "package", "version", "role", "hour"),
    Index("results_hour_package_version_hour", "package", "version", "hour"),
    sqlite_with_rowid=False,
)

#: ``state`` from records (installed, activated, live, withdrawn, rolled_back; NULL before the first); ``role``,
#: ``backend``, ``precision`` and ``points`` from health, where ``serves`` says that the newest one listed it.
package_state = Table(
    "package_state",
    METADATA,
    _of_device(key=True),
    Column("package", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("digest", Text, nullable=False, server_default=""),
    Column("state", Text),
    Column("state_at", Utc),
    Column("serves", Boolean, nullable=False),
    Column("role", Text, nullable=False, server_default=""),
    Column("backend", Text, nullable=False, server_default=""),
    Column("precision", Text, nullable=False, server_default=""),
    Column("points", Document, nullable=False),
    *_from_record(),
    Index("package_state_version", "package", "version", "serves", "device"),
)

engine_state = Table(
    "engine_state",
    METADATA,
    _of_device(key=True),
    Column("package", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("backend", Text, nullable=False, server_default=""),
    Column("precision", Text, nullable=False, server_default=""),
    Column("build_ms", Float),
    Column("at", Utc, nullable=False),
    *_from_record(),
)

#: ``box_state`` is what people did at the box (raised, acknowledged, shelved, cleared); the last four columns are what
#: people did here.
issue_state = Table(
    "issue_state",
    METADATA,
    _of_device(key=True),
    Column("ref", Text, primary_key=True),
    Column("code", Text, nullable=False),
    Column("severity", Text, nullable=False, server_default=""),
    Column("box_state", Text, nullable=False),
    Column("raised_at", Utc, nullable=False),
    Column("cleared_at", Utc),
    *_from_record(),
    Column("acknowledged_by", BigInteger, ForeignKey("account.number")),
    Column("acknowledged_at", Utc),
    Column("shelved_by", BigInteger, ForeignKey("account.number")),
    Column("shelved_until", Utc),
    Index("issue_state_open", "cleared_at", "code", "device"),
)

#: What a source of a box is; ``source`` is its number there.
equipment = Table(
    "equipment",
    METADATA,
    _of_device(key=True),
    Column("source", Integer, primary_key=True, autoincrement=False),
    Column("modality", Text, nullable=False),
    Column("make", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("kernels", Document, nullable=False),
    Column("at", Utc, nullable=False),
    *_from_record(),
    Index("equipment_make", "make", "device", "model"),
)

#: What was not taken, by reason. ``device`` is "" where nobody of that name is enrolled, so the table stays small.
refusal = Table(
    "refusal",
    METADATA,
    Column("device", Text, primary_key=True),
    Column("reason", Text, primary_key=True),
    Column("n", BigInteger, nullable=False),
    Column("first_at", Utc, nullable=False),
    Column("last_at", Utc, nullable=False),
)

# What boxes are told -------------------------------------------------------------------------------------------------

#: The highest counters that a box was ever given, says that it has, or the minutes of the clock when a server last
#: started (``acts.lift_counters``): what comes next is higher than all.
device_counter = Table(
    "device_counter",
    METADATA,
    _of_device(key=True),
    Column("ctr", BigInteger, nullable=False),
    Column("dv", BigInteger, nullable=False),
)

#: ``envelope`` is the signed desired document as it goes out; the lower half is what the box made of it.
twin = Table(
    "twin",
    METADATA,
    _of_device(key=True),
    Column("dv", BigInteger, nullable=False, server_default="0"),
    Column("desired", Document),
    Column("envelope", LargeBinary),
    Column("made_at", Utc),
    Column("made_by", BigInteger, ForeignKey("account.number")),
    Column("rv", BigInteger, nullable=False, server_default="0"),
    Column("applied_dv", BigInteger, nullable=False, server_default="0"),
    Column("refused_dv", BigInteger),
    Column("errors", Document),
    Column("reported", Document),
    Column("reported_at", Utc),
)

#: ``op`` is "" for a job that a box reports and a restored server does not know. ``state_version`` counts its steps;
#: 0 = the box has said nothing yet. ``state`` is ``wire_jobs.JobState``.
job = Table(
    "job",
    METADATA,
    Column("id", Text, primary_key=True),
    _of_device(),
    Column("ctr", BigInteger, nullable=False),
    Column("op", Text, nullable=False),
    Column("args", Document, nullable=False),
    Column("envelope", LargeBinary),
    Column("made_by", BigInteger, ForeignKey("account.number")),
    Column("approved_by", BigInteger, ForeignKey("account.number")),
    Column("made_at", Utc, nullable=False),
    Column("expires_at", Utc),
    Column("sent_at", Utc),
    Column("state", Text, nullable=False),
    Column("state_version", BigInteger, nullable=False, server_default="0"),
    Column("state_at", Utc, nullable=False),
    Column("code", Text, nullable=False, server_default=""),
    Column("percent", Float),
    Column("figures", Document, nullable=False),
    Column("roll_out", Text, ForeignKey("roll_out.id")),
    Column("wave", Integer),
    UniqueConstraint("device", "ctr"),
    Index("job_device_state", "device", "state"),
    Index("job_state_sent_at", "state", "sent_at"),
    Index("job_roll_out", "roll_out", "wave", "state"),
)

#: What a job lets a box send up, once: ``digest`` = SHA-256 of the token in the job. ``sha256`` of what came and lies
#: in the folder ``uploads``, until ``removed_at``.
upload = Table(
    "upload",
    METADATA,
    Column("digest", Text, primary_key=True),
    _of_device(),
    Column("job", Text, ForeignKey("job.id"), nullable=False, unique=True),
    Column("made_at", Utc, nullable=False),
    Column("expires_at", Utc, nullable=False),
    Column("received_at", Utc),
    Column("sha256", Text),
    Column("size", BigInteger),
    Column("removed_at", Utc),
    Index("upload_device_received_at", "device", "received_at"),
)

#: DRAFT > WAITING_APPROVAL > READY > RUNNING <> PAUSED > FINISHED | ABORTED (> REVERTING > REVERTED). ``chosen`` says
#: which boxes, ``plan`` the waves and gates, ``paused_why`` manual or the gate's code. ``grant_text`` is what release
#: keys sign, ``grant_envelope`` that with their signatures.
roll_out = Table(
    "roll_out",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, ForeignKey("tenant.id"), nullable=False, index=True),
    Column("package", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("wave", Integer, nullable=False, server_default="0"),
    Column("chosen", Document, nullable=False),
    Column("plan", Document, nullable=False),
    Column("paused_why", Text, nullable=False, server_default=""),
    Column("made_by", BigInteger, ForeignKey("account.number"), nullable=False),
    Column("made_at", Utc, nullable=False),
    Column("approved_by", BigInteger, ForeignKey("account.number")),
    Column("approved_at", Utc),
    Column("state_at", Utc, nullable=False),
    Column("grant_text", Text),
    Column("grant_envelope", LargeBinary),
)

#: ``verdict`` = what each gate measured, with its n and its bound; "not judged" is one of its words.
wave = Table(
    "wave",
    METADATA,
    Column("roll_out", Text, ForeignKey("roll_out.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("began_at", Utc),
    Column("ended_at", Utc),
    Column("verdict", Document),
)

#: Which box is in which wave, and by which job. ``before`` = version and role that served there, for a revert.
wave_device = Table(
    "wave_device",
    METADATA,
    Column("roll_out", Text, ForeignKey("roll_out.id"), primary_key=True),
    _of_device(key=True),
    Column("wave", Integer, nullable=False),
    Column("job", Text, ForeignKey("job.id")),
    Column("revert_job", Text, ForeignKey("job.id")),
    Column("before", Document),
    Column("left_out", Text, nullable=False, server_default=""),
)

#: A clinical freeze: nothing new is installed at this tenant, site or device. One of the three is set.
hold = Table(
    "hold",
    METADATA,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("tenant", Text, ForeignKey("tenant.id")),
    Column("site", Text, ForeignKey("site.id")),
    Column("device", Text, ForeignKey("device.id")),
    Column("why", Text, nullable=False),
    Column("made_by", BigInteger, ForeignKey("account.number")),
    Column("made_at", Utc, nullable=False),
    Column("until_at", Utc),
    Column("lifted_by", BigInteger, ForeignKey("account.number")),
    Column("lifted_at", Utc),
)

#: What boxes can fetch (``models``), said by the packages themselves. ``target`` leads to it in the TUF repository;
#: ``withdrawn_at``: it is listed there no more.
model = Table(
    "model",
    METADATA,
    Column("package", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("target", Text, nullable=False, unique=True),
    Column("size", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("title", Document, nullable=False),
    Column("markets", Document, nullable=False),
    Column("min_agent", Text, nullable=False, server_default=""),
    Column("added_at", Utc, nullable=False),
    Column("added_by", Text, nullable=False),
    Column("withdrawn_at", Utc),
    Column("withdrawn_by", Text),
    CheckConstraint("status IN ('demonstrator', 'research', 'cleared')", name="status"),
)

#: Public halves of what signs acks, twins and jobs; ``role`` online or release.
server_key = Table(
    "server_key",
    METADATA,
    Column("keyid", Text, primary_key=True),
    Column("role", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("pem", Text, nullable=False),
    Column("made_at", Utc, nullable=False),
    Column("retired_at", Utc),
    CheckConstraint("role IN ('online', 'release')", name="role"),
)

# People --------------------------------------------------------------------------------------------------------------

account = Table(
    "account",
    METADATA,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("name", Text, nullable=False, unique=True),
    Column("full_name", Text, nullable=False),
    Column("password", Text),
    Column("must_change", Boolean, nullable=False),
    Column("subject", Text, unique=True),
    Column("is_active", Boolean, nullable=False),
    Column("made_at", Utc, nullable=False),
    sqlite_autoincrement=True,
)

#: What a person is in a tenant and all below it: operator (platform), service, viewer, approver, administrator.
account_role = Table(
    "account_role",
    METADATA,
    Column("account", BigInteger, ForeignKey("account.number"), primary_key=True),
    Column("tenant", Text, ForeignKey("tenant.id"), primary_key=True),
    Column("role", Text, primary_key=True),
)

#: ``digest`` = SHA-256 of the cookie. ``tenant`` = as whom they look now.
session = Table(
    "session",
    METADATA,
    Column("digest", Text, primary_key=True),
    Column("account", BigInteger, ForeignKey("account.number"), nullable=False, index=True),
    Column("tenant", Text, ForeignKey("tenant.id")),
    Column("made_at", Utc, nullable=False),
    Column("seen_at", Utc, nullable=False),
    Column("proved_at", Utc, nullable=False),
)

#: Who did what. ``hash`` chains each row to the one before (``registry.write_audit``).
audit = Table(
    "audit",
    METADATA,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("at", Utc, nullable=False),
    Column("account", BigInteger, ForeignKey("account.number")),
    Column("actor", Text, nullable=False),
    Column("tenant", Text, ForeignKey("tenant.id")),
    Column("act", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", Document, nullable=False),
    Column("hash", Text, nullable=False),
    Index("audit_tenant_number", "tenant", "number"),
    Index("audit_subject", "subject"),
    sqlite_autoincrement=True,
)

"""Boxes, what they say and are told, and people."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from appliance.fleet.server.tables import Document, Number, Utc

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "account",
        sa.Column("number", Number, autoincrement=True, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("full_name", sa.Text(), nullable=False),
        sa.Column("password", sa.Text(), nullable=True),
        sa.Column("must_change", sa.Boolean(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("made_at", Utc, nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("account_key")),
        sa.UniqueConstraint("name", name=op.f("account_name_once")),
        sa.UniqueConstraint("subject", name=op.f("account_subject_once")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "health_point",
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("stream", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("at", Utc, nullable=False),
        sa.Column("body", Document, nullable=False),
        sa.PrimaryKeyConstraint("device", "stream", "seq", name=op.f("health_point_key")),
        sqlite_with_rowid=False,
    )
    op.create_index("health_point_device_at", "health_point", ["device", "at"], unique=False)
    op.create_table(
        "record",
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("k", sa.Text(), nullable=False),
        sa.Column("ts", sa.BigInteger(), nullable=False),
        sa.Column("rx_at", Utc, nullable=False),
        sa.Column("body", Document, nullable=False),
        sa.PrimaryKeyConstraint("device", "stream", "seq", name=op.f("record_key")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("record_rx_at"), "record", ["rx_at"], unique=False)
    op.create_table(
        "refusal",
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("first_at", Utc, nullable=False),
        sa.Column("last_at", Utc, nullable=False),
        sa.PrimaryKeyConstraint("device", "reason", name=op.f("refusal_key")),
    )
    op.create_table(
        "results_hour",
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("package", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("hour", Utc, nullable=False),
        sa.Column("hours", sa.Integer(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("flagged", Document, nullable=False),
        sa.Column("nothing_flagged", sa.BigInteger(), nullable=False),
        sa.Column("not_analysed", Document, nullable=False),
        sa.Column("suppressed", sa.BigInteger(), nullable=False),
        sa.Column("reviewed", sa.BigInteger(), nullable=False),
        sa.Column("agreed", sa.BigInteger(), nullable=False),
        sa.Column("p50_ms", sa.Float(), nullable=True),
        sa.Column("p95_ms", sa.Float(), nullable=True),
        sa.Column("p99_ms", sa.Float(), nullable=True),
        sa.Column("psi", Document, nullable=False),
        sa.Column("stream", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("device", "package", "version", "role", "hour", name=op.f("results_hour_key")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("results_hour_hour"), "results_hour", ["hour"], unique=False)
    op.create_index("results_hour_package_version_hour", "results_hour", ["package", "version", "hour"], unique=False)
    op.create_table(
        "server_key",
        sa.Column("keyid", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("pem", sa.Text(), nullable=False),
        sa.Column("made_at", Utc, nullable=False),
        sa.Column("retired_at", Utc, nullable=True),
        sa.CheckConstraint("role IN ('online', 'release')", name=op.f("server_key_role")),
        sa.PrimaryKeyConstraint("keyid", name=op.f("server_key_key")),
    )
    op.create_table(
        "tenant",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("parent", sa.Text(), nullable=True),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("made_at", Utc, nullable=False),
        sa.CheckConstraint("kind IN ('platform', 'vendor', 'dealer', 'hospital')", name=op.f("tenant_kind")),
        sa.ForeignKeyConstraint(["parent"], ["tenant.id"], name=op.f("tenant_parent_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("tenant_key")),
        sa.UniqueConstraint("path", name=op.f("tenant_path_once")),
    )
    op.create_table(
        "account_role",
        sa.Column("account", sa.BigInteger(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["account"], ["account.number"], name=op.f("account_role_account_known")),
        sa.ForeignKeyConstraint(["tenant"], ["tenant.id"], name=op.f("account_role_tenant_known")),
        sa.PrimaryKeyConstraint("account", "tenant", "role", name=op.f("account_role_key")),
    )
    op.create_table(
        "audit",
        sa.Column("number", Number, autoincrement=True, nullable=False),
        sa.Column("at", Utc, nullable=False),
        sa.Column("account", sa.BigInteger(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=True),
        sa.Column("act", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("detail", Document, nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["account"], ["account.number"], name=op.f("audit_account_known")),
        sa.ForeignKeyConstraint(["tenant"], ["tenant.id"], name=op.f("audit_tenant_known")),
        sa.PrimaryKeyConstraint("number", name=op.f("audit_key")),
        sqlite_autoincrement=True,
    )
    op.create_index("audit_subject", "audit", ["subject"], unique=False)
    op.create_index("audit_tenant_number", "audit", ["tenant", "number"], unique=False)
    op.create_table(
        "session",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("account", sa.BigInteger(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=True),
        sa.Column("made_at", Utc, nullable=False),
        sa.Column("seen_at", Utc, nullable=False),
        sa.Column("proved_at", Utc, nullable=False),
        sa.ForeignKeyConstraint(["account"], ["account.number"], name=op.f("session_account_known")),
        sa.ForeignKeyConstraint(["tenant"], ["tenant.id"], name=op.f("session_tenant_known")),
        sa.PrimaryKeyConstraint("digest", name=op.f("session_key")),
    )
    op.create_index(op.f("session_account"), "session", ["account"], unique=False)
    op.create_table(
        "site",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("zone", sa.Text(), server_default="UTC", nullable=False),
        sa.Column("country", sa.Text(), server_default="", nullable=False),
        sa.Column("made_at", Utc, nullable=False),
        sa.ForeignKeyConstraint(["tenant"], ["tenant.id"], name=op.f("site_tenant_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("site_key")),
    )
    op.create_index(op.f("site_tenant"), "site", ["tenant"], unique=False)
    op.create_table(
        "device",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("serial", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), server_default="", nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("hardware", sa.Text(), server_default="", nullable=False),
        sa.Column("made_at", Utc, nullable=False),
        sa.Column("disabled_at", Utc, nullable=True),
        sa.Column("replaced_by", sa.Text(), nullable=True),
        sa.CheckConstraint("state IN ('enrolled', 'disabled', 'replaced')", name=op.f("device_state")),
        sa.ForeignKeyConstraint(["replaced_by"], ["device.id"], name=op.f("device_replaced_by_known")),
        sa.ForeignKeyConstraint(["site"], ["site.id"], name=op.f("device_site_known")),
        sa.ForeignKeyConstraint(["tenant"], ["tenant.id"], name=op.f("device_tenant_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("device_key")),
        sa.UniqueConstraint("number", name=op.f("device_number_once")),
    )
    op.create_index(op.f("device_serial"), "device", ["serial"], unique=False)
    op.create_index(op.f("device_site"), "device", ["site"], unique=False)
    op.create_index("device_tenant_number", "device", ["tenant", "number"], unique=False)
    op.create_table(
        "certificate",
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("serial", sa.Text(), nullable=False),
        sa.Column("pem", sa.Text(), nullable=False),
        sa.Column("not_before", Utc, nullable=False),
        sa.Column("not_after", Utc, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("made_at", Utc, nullable=False),
        sa.Column("seen_at", Utc, nullable=True),
        sa.Column("revoked_at", Utc, nullable=True),
        sa.CheckConstraint("state IN ('trial', 'current', 'superseded', 'revoked')", name=op.f("certificate_state")),
        sa.ForeignKeyConstraint(["device"], ["device.id"], name=op.f("certificate_device_known")),
        sa.PrimaryKeyConstraint("fingerprint", name=op.f("certificate_key")),
    )
    op.create_index("certificate_device_state", "certificate", ["device", "state"], unique=False)
    op.create_index("certificate_state_not_after", "certificate", ["state", "not_after"], unique=False)
    op.create_table(
        "device_counter",
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("ctr", sa.BigInteger(), nullable=False),
        sa.Column("dv", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["device"], ["device.id"], name=op.f("device_counter_device_known")),
        sa.PrimaryKeyConstraint("device", name=op.f("device_counter_key")),
    )
    op.create_table(
        "engine_state",
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("package", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("backend", sa.Text(), server_default="", nullable=False),
        sa.Column("precision", sa.Text(), server_default="", nullable=False),
        sa.Column("build_ms", sa.Float(), nullable=True),
        sa.Column("at", Utc, nullable=False),
        sa.Column("stream", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["device"], ["device.id"], name=op.f("engine_state_device_known")),
        sa.PrimaryKeyConstraint("device", "package", name=op.f("engine_state_key")),
    )
    op.create_table(
        "enrol_token",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("serial", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("replaces", sa.Text(), nullable=True),
        sa.Column("made_at", Utc, nullable=False),
        sa.Column("made_by", sa.BigInteger(), nullable=True),
        sa.Column("expires_at", Utc, nullable=False),
        sa.Column("used_at", Utc, nullable=True),
        sa.Column("device", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["device"], ["device.id"], name=op.f("enrol_token_device_known")),
        sa.ForeignKeyConstraint(["replaces"], ["device.id"], name=op.f("enrol_token_replaces_known")),
        sa.ForeignKeyConstraint(["site"], ["site.id"], name=op.f("enrol_token_site_known")),
        sa.ForeignKeyConstraint(["tenant"], ["tenant.id"], name=op.f("enrol_token_tenant_known")),
        sa.PrimaryKeyConstraint("digest", name=op.f("enrol_token_key")),
    )
    op.create_table(
        "equipment",
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("source", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("modality", sa.Text(), nullable=False),
        sa.Column("make", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("kernels", Document, nullable=False),
        sa.Column("at", Utc, nullable=False),
        sa.Column("stream", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["device"], ["device.id"], name=op.f("equipment_device_known")),
        sa.PrimaryKeyConstraint("device", "source", name=op.f("equipment_key")),
    )
    op.create_index("equipment_make", "equipment", ["make", "device", "model"], unique=False)
    op.create_table(
        "health_now",
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("at", Utc, nullable=False),
        sa.Column("sess", sa.BigInteger(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("ai", sa.Text(), nullable=False),
        sa.Column("skew_ms", sa.BigInteger(), nullable=True),
        sa.Column("backlog_s", sa.Float(), nullable=False),
        sa.Column("oldest_owed_s", sa.Float(), nullable=False),
        sa.Column("cert_days", sa.Float(), nullable=True),
        sa.Column("packages_hash", sa.Text(), server_default="", nullable=False),
        sa.Column("body", Document, nullable=False),
        sa.ForeignKeyConstraint(["device"], ["device.id"], name=op.f("health_now_device_known")),
        sa.PrimaryKeyConstraint("device", name=op.f("health_now_key")),
    )
    op.create_table(
        "issue_state",
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("ref", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), server_default="", nullable=False),
        sa.Column("box_state", sa.Text(), nullable=False),
        sa.Column("raised_at", Utc, nullable=False),
        sa.Column("cleared_at", Utc, nullable=True),
        sa.Column("stream", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("acknowledged_by", sa.BigInteger(), nullable=True),
        sa.Column("acknowledged_at", Utc, nullable=True),
        sa.Column("shelved_by", sa.BigInteger(), nullable=True),
        sa.Column("shelved_until", Utc, nullable=True),
        sa.ForeignKeyConstraint(
            ["acknowledged_by"], ["account.number"], name=op.f("issue_state_acknowledged_by_known")
        ),
        sa.ForeignKeyConstraint(["device"], ["device.id"], name=op.f("issue_state_device_known")),
        sa.ForeignKeyConstraint(["shelved_by"], ["account.number"], name=op.f("issue_state_shelved_by_known")),
        sa.PrimaryKeyConstraint("device", "ref", name=op.f("issue_state_key")),
    )
    op.create_index("issue_state_open", "issue_state", ["cleared_at", "code", "device"], unique=False)
    op.create_table(
        "job",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("ctr", sa.BigInteger(), nullable=False),
        sa.Column("op", sa.Text(), nullable=False),
        sa.Column("args", Document, nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=True),
        sa.Column("made_by", sa.BigInteger(), nullable=True),
        sa.Column("approved_by", sa.BigInteger(), nullable=True),
        sa.Column("made_at", Utc, nullable=False),
        sa.Column("expires_at", Utc, nullable=True),
        sa.Column("sent_at", Utc, nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("state_version", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("state_at", Utc, nullable=False),
        sa.Column("code", sa.Text(), server_default="", nullable=False),
        sa.Column("percent", sa.Float(), nullable=True),
        sa.Column("figures", Document, nullable=False),
        sa.ForeignKeyConstraint(["approved_by"], ["account.number"], name=op.f("job_approved_by_known")),
        sa.ForeignKeyConstraint(["device"], ["device.id"], name=op.f("job_device_known")),
        sa.ForeignKeyConstraint(["made_by"], ["account.number"], name=op.f("job_made_by_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("job_key")),
        sa.UniqueConstraint("device", "ctr", name=op.f("job_device_ctr_once")),
    )
    op.create_index("job_device_state", "job", ["device", "state"], unique=False)
    op.create_index("job_state_sent_at", "job", ["state", "sent_at"], unique=False)
    op.create_table(
        "package_state",
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("package", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), server_default="", nullable=False),
        sa.Column("state", sa.Text(), nullable=True),
        sa.Column("state_at", Utc, nullable=True),
        sa.Column("serves", sa.Boolean(), nullable=False),
        sa.Column("role", sa.Text(), server_default="", nullable=False),
        sa.Column("backend", sa.Text(), server_default="", nullable=False),
        sa.Column("precision", sa.Text(), server_default="", nullable=False),
        sa.Column("points", Document, nullable=False),
        sa.Column("stream", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["device"], ["device.id"], name=op.f("package_state_device_known")),
        sa.PrimaryKeyConstraint("device", "package", "version", name=op.f("package_state_key")),
    )
    op.create_index("package_state_version", "package_state", ["package", "version", "serves", "device"], unique=False)
    op.create_table(
        "status",
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("online", sa.Boolean(), nullable=False),
        sa.Column("why", sa.Text(), server_default="", nullable=False),
        sa.Column("sess", sa.BigInteger(), nullable=False),
        sa.Column("stream", sa.Text(), server_default="", nullable=False),
        sa.Column("boot", sa.Text(), server_default="", nullable=False),
        sa.Column("agent", sa.Text(), server_default="", nullable=False),
        sa.Column("nonce", sa.Text(), server_default="", nullable=False),
        sa.Column("clk", sa.Text(), server_default="none", nullable=False),
        sa.Column("since_at", Utc, nullable=False),
        sa.Column("last_seen_at", Utc, nullable=False),
        sa.Column("due_at", Utc, nullable=False),
        sa.ForeignKeyConstraint(["device"], ["device.id"], name=op.f("status_device_known")),
        sa.PrimaryKeyConstraint("device", name=op.f("status_key")),
    )
    op.create_index("status_online_due_at", "status", ["online", "due_at"], unique=False)
    op.create_table(
        "stream",
        sa.Column("number", Number, autoincrement=True, nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("top", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cursor", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("floor", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("first_at", Utc, nullable=False),
        sa.ForeignKeyConstraint(["device"], ["device.id"], name=op.f("stream_device_known")),
        sa.PrimaryKeyConstraint("number", name=op.f("stream_key")),
        sa.UniqueConstraint("device", "stream", name=op.f("stream_device_stream_once")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "twin",
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("dv", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("desired", Document, nullable=True),
        sa.Column("envelope", sa.LargeBinary(), nullable=True),
        sa.Column("made_at", Utc, nullable=True),
        sa.Column("made_by", sa.BigInteger(), nullable=True),
        sa.Column("rv", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("applied_dv", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("refused_dv", sa.BigInteger(), nullable=True),
        sa.Column("errors", Document, nullable=True),
        sa.Column("reported", Document, nullable=True),
        sa.Column("reported_at", Utc, nullable=True),
        sa.ForeignKeyConstraint(["device"], ["device.id"], name=op.f("twin_device_known")),
        sa.ForeignKeyConstraint(["made_by"], ["account.number"], name=op.f("twin_made_by_known")),
        sa.PrimaryKeyConstraint("device", name=op.f("twin_key")),
    )

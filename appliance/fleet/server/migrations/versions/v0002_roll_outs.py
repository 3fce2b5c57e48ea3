"""Roll-outs, their waves, and holds."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from appliance.fleet.server.tables import Document, Number, Utc

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "roll_out",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("package", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("wave", sa.Integer(), server_default="0", nullable=False),
        sa.Column("chosen", Document, nullable=False),
        sa.Column("plan", Document, nullable=False),
        sa.Column("paused_why", sa.Text(), server_default="", nullable=False),
        sa.Column("made_by", sa.BigInteger(), nullable=False),
        sa.Column("made_at", Utc, nullable=False),
        sa.Column("approved_by", sa.BigInteger(), nullable=True),
        sa.Column("approved_at", Utc, nullable=True),
        sa.Column("state_at", Utc, nullable=False),
        sa.ForeignKeyConstraint(["approved_by"], ["account.number"], name=op.f("roll_out_approved_by_known")),
        sa.ForeignKeyConstraint(["made_by"], ["account.number"], name=op.f("roll_out_made_by_known")),
        sa.ForeignKeyConstraint(["tenant"], ["tenant.id"], name=op.f("roll_out_tenant_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("roll_out_key")),
    )
    op.create_index(op.f("roll_out_tenant"), "roll_out", ["tenant"], unique=False)
    op.create_table(
        "wave",
        sa.Column("roll_out", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("began_at", Utc, nullable=True),
        sa.Column("ended_at", Utc, nullable=True),
        sa.Column("verdict", Document, nullable=True),
        sa.ForeignKeyConstraint(["roll_out"], ["roll_out.id"], name=op.f("wave_roll_out_known")),
        sa.PrimaryKeyConstraint("roll_out", "number", name=op.f("wave_key")),
    )
    op.create_table(
        "hold",
        sa.Column("number", Number, autoincrement=True, nullable=False),
        sa.Column("tenant", sa.Text(), nullable=True),
        sa.Column("site", sa.Text(), nullable=True),
        sa.Column("device", sa.Text(), nullable=True),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("made_by", sa.BigInteger(), nullable=False),
        sa.Column("made_at", Utc, nullable=False),
        sa.Column("until_at", Utc, nullable=True),
        sa.Column("lifted_by", sa.BigInteger(), nullable=True),
        sa.Column("lifted_at", Utc, nullable=True),
        sa.ForeignKeyConstraint(["device"], ["device.id"], name=op.f("hold_device_known")),
        sa.ForeignKeyConstraint(["lifted_by"], ["account.number"], name=op.f("hold_lifted_by_known")),
        sa.ForeignKeyConstraint(["made_by"], ["account.number"], name=op.f("hold_made_by_known")),
        sa.ForeignKeyConstraint(["site"], ["site.id"], name=op.f("hold_site_known")),
        sa.ForeignKeyConstraint(["tenant"], ["tenant.id"], name=op.f("hold_tenant_known")),
        sa.PrimaryKeyConstraint("number", name=op.f("hold_key")),
    )
    op.create_table(
        "wave_device",
        sa.Column("roll_out", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("job", sa.Text(), nullable=True),
        sa.Column("revert_job", sa.Text(), nullable=True),
        sa.Column("before", Document, nullable=True),
        sa.Column("left_out", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["device"], ["device.id"], name=op.f("wave_device_device_known")),
        sa.ForeignKeyConstraint(["job"], ["job.id"], name=op.f("wave_device_job_known")),
        sa.ForeignKeyConstraint(["revert_job"], ["job.id"], name=op.f("wave_device_revert_job_known")),
        sa.ForeignKeyConstraint(["roll_out"], ["roll_out.id"], name=op.f("wave_device_roll_out_known")),
        sa.PrimaryKeyConstraint("roll_out", "device", name=op.f("wave_device_key")),
    )
    with op.batch_alter_table("job") as batch:
        batch.add_column(sa.Column("roll_out", sa.Text()))
        batch.add_column(sa.Column("wave", sa.Integer()))
        batch.create_foreign_key("job_roll_out_known", "roll_out", ["roll_out"], ["id"])
        batch.create_index("job_roll_out", ["roll_out", "wave", "state"])

"""What boxes send up by HTTPS, hourly means of their health, and how far records have been pruned."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from appliance.fleet.server.tables import Document, Utc

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "upload",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("made_at", Utc, nullable=False),
        sa.Column("expires_at", Utc, nullable=False),
        sa.Column("received_at", Utc, nullable=True),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("removed_at", Utc, nullable=True),
        sa.ForeignKeyConstraint(["device"], ["device.id"], name=op.f("upload_device_known")),
        sa.ForeignKeyConstraint(["job"], ["job.id"], name=op.f("upload_job_known")),
        sa.PrimaryKeyConstraint("digest", name=op.f("upload_key")),
        sa.UniqueConstraint("job", name=op.f("upload_job_once")),
    )
    op.create_index("upload_device_received_at", "upload", ["device", "received_at"], unique=False)
    op.create_table(
        "health_hour",
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("hour", Utc, nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("body", Document, nullable=False),
        sa.PrimaryKeyConstraint("device", "hour", name=op.f("health_hour_key")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("health_hour_hour"), "health_hour", ["hour"], unique=False)
    with op.batch_alter_table("stream") as batch:
        batch.add_column(sa.Column("pruned", sa.BigInteger(), server_default="0", nullable=False))
        batch.add_column(sa.Column("stick", sa.BigInteger(), server_default="0", nullable=False))

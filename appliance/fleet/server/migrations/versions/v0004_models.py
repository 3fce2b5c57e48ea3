"""The models that boxes can fetch."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from appliance.fleet.server.tables import Document, Utc

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "model",
        sa.Column("package", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("title", Document, nullable=False),
        sa.Column("markets", Document, nullable=False),
        sa.Column("min_agent", sa.Text(), server_default="", nullable=False),
        sa.Column("added_at", Utc, nullable=False),
        sa.Column("added_by", sa.Text(), nullable=False),
        sa.Column("withdrawn_at", Utc, nullable=True),
        sa.Column("withdrawn_by", sa.Text(), nullable=True),
        sa.CheckConstraint("status IN ('demonstrator', 'research', 'cleared')", name=op.f("model_status")),
        sa.PrimaryKeyConstraint("package", "version", name=op.f("model_key")),
        sa.UniqueConstraint("target", name=op.f("model_target_once")),
    )

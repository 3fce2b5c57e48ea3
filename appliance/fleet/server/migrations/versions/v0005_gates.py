"""What roll-outs need beyond their first tables: the grant, as it is to be signed and as it was."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make them."""
    with op.batch_alter_table("roll_out") as batch:
        batch.add_column(sa.Column("grant_text", sa.Text()))
        batch.add_column(sa.Column("grant_envelope", sa.LargeBinary()))
    # A hold is also a tenant's word at the command line, where nobody has an account.
    with op.batch_alter_table("hold") as batch:
        batch.alter_column("made_by", existing_type=sa.BigInteger(), nullable=True)

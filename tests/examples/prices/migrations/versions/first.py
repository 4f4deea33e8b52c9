"""The table as it was."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision, down_revision = "first", "jobs"


def upgrade() -> None:
    op.create_table(
        "price",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("amount", sa.Text, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("price")

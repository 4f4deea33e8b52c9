"""Runs, their results, and who did what."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_RUN = "async_loader_service_run"


def upgrade() -> None:
    """Make the first tables."""
    op.create_table(
        _RUN,
        sa.Column("id", _ID, primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("scenario", sa.String(64), nullable=False),
        sa.Column("target", sa.String(64), nullable=False),
        sa.Column("active_on", sa.String(64), unique=True),
        sa.Column("overrides", sa.JSON, nullable=False),
        sa.Column("settings", sa.JSON, nullable=False),
        sa.Column("started_by", sa.String(128), nullable=False),
        sa.Column("scheduled", sa.Integer, nullable=False),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("ended_at", sa.Double),
        sa.Column("process", sa.JSON),
        sa.Column("phase", sa.String(64)),
        sa.Column("snapshot", sa.JSON),
        sa.Column("reasons", sa.JSON, nullable=False),
        sa.Column("figures", sa.JSON),
    )
    for column in ("scenario", "target", "state"):
        op.create_index(f"ix_{_RUN}_{column}", _RUN, [column, "id"])
    op.create_table(
        "async_loader_service_result",
        sa.Column("run", _ID, sa.ForeignKey(f"{_RUN}.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("document", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "async_loader_service_audit",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("who", sa.String(128), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("run", sa.BigInteger),
        sa.Column("detail", sa.Text, nullable=False),
    )


def downgrade() -> None:
    """Drop them."""
    for table in ("async_loader_service_audit", "async_loader_service_result", _RUN):
        op.drop_table(table)

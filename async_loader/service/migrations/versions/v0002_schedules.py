"""When each schedule started its scenario, whatever becomes of the run."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_SCHEDULE = "async_loader_service_schedule"


def upgrade() -> None:
    """Make the table, of what the kept runs tell."""
    op.create_table(
        _SCHEDULE,
        sa.Column("scenario", sa.String(64), primary_key=True),
        sa.Column("last_at", sa.Double, nullable=False),
    )
    op.execute(
        f"INSERT INTO {_SCHEDULE} (scenario, last_at) "
        "SELECT scenario, max(started_at) FROM async_loader_service_run "
        "WHERE scheduled = 1 GROUP BY scenario"
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table(_SCHEDULE)

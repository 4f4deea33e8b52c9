# prices/migrations/versions/jobs.py
from alembic import op

from async_loader.jobs import create_state_tables

revision, down_revision = "jobs", None


def upgrade() -> None:
    create_state_tables(op.get_bind())


def downgrade() -> None:
    pass  # what the jobs have done is kept

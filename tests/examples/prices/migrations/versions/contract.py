# prices/migrations/versions/contract.py
import sqlalchemy as sa
from alembic import op

from async_loader.jobs import require_job

revision, down_revision = "contract", "expand"


def upgrade() -> None:
    require_job("backfill_prices", op.get_bind())  # raises, and nothing below is executed
    op.alter_column("price", "cents", nullable=False)
    op.drop_column("price", "amount")


def downgrade() -> None:
    op.add_column("price", sa.Column("amount", sa.Text))

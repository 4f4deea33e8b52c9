# prices/migrations/versions/expand.py
import sqlalchemy as sa
from alembic import op

revision, down_revision = "expand", "first"


def upgrade() -> None:
    op.add_column("price", sa.Column("cents", sa.Integer))  # nullable: nothing is rewritten


def downgrade() -> None:
    op.drop_column("price", "cents")

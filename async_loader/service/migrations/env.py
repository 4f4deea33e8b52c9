"""What Alembic executes for each of its commands."""

from __future__ import annotations

from alembic import context

from async_loader.service.migrations import VERSION_TABLE
from async_loader.service.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,  # SQLite changes a column by making the table anew
)
with context.begin_transaction():
    context.run_migrations()

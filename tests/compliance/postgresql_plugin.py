"""A pytest plugin that gives somebody else's test-suite PostgreSQL, whatever URL it names.

Loaded by name with `-p postgresql_plugin`. Each engine for SQLite is one in an emptied schema of
the database `FOREIGN_URL`, because such suites take a new file or memory for an empty database;
an engine for PostgreSQL gets a driver that batching knows.
"""

from __future__ import annotations

import os
from typing import Any


def _replace() -> None:
    import sqlalchemy
    import sqlalchemy.engine
    import sqlalchemy.engine.create
    from sqlalchemy.engine import make_url

    target = make_url(os.environ["FOREIGN_URL"])
    original: Any = sqlalchemy.engine.create.create_engine

    def create_engine(url: Any, **options: Any) -> Any:
        named = make_url(url)
        is_async = options.pop("_is_async", False)
        driver = "postgresql+asyncpg" if is_async else "postgresql+psycopg"
        if named.get_backend_name() == "sqlite":
            for option in ("connect_args", "poolclass"):
                options.pop(option, None)
            engine = original(target.set(drivername="postgresql+psycopg"))
            with engine.begin() as connection:
                connection.exec_driver_sql("DROP SCHEMA public CASCADE")
                connection.exec_driver_sql("CREATE SCHEMA public")
            engine.dispose()
            named = target
        elif named.get_backend_name() != "postgresql":
            return original(url, **options)
        if is_async:
            options["_is_async"] = True
        return original(named.set(drivername=driver), **options)

    for module in (sqlalchemy, sqlalchemy.engine, sqlalchemy.engine.create):
        module.create_engine = create_engine  # type: ignore[attr-defined]  # replaced on purpose
    import sqlalchemy.ext.asyncio.engine as asynchronous

    sync_create: Any = create_engine
    asynchronous._create_engine = sync_create  # type: ignore[attr-defined]  # what async ones call


def pytest_configure() -> None:
    """Replace the functions before the suite's modules import them."""
    _replace()

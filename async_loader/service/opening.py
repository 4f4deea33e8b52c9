"""The history's database: found or made, migrated, and held against a second service."""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import platformdirs
from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from ..backends import backend_of
from ..database import closing, parse_url, place, unreachable
from ..errors import AsyncLoaderError, ConfigurationError
from .history import History
from .migrations import migrate

FILE = "history.sqlite"
_CONNECTIONS = 5
_LOCK = 0x41534C44_53455256  # "ASLDSERV"


def history_url(url: str | None) -> URL:
    """Return where the history is: the user's data directory, unless a URL says otherwise."""
    if url is not None:
        try:
            return parse_url(url)
        except ConfigurationError as error:
            message = str(error).replace("--database-url", "--history-url")
            raise ConfigurationError(message) from None
    folder = platformdirs.user_data_path("async_loader", appauthor=False)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigurationError(f"{folder}: {error.strerror}; see --history-url") from None
    return URL.create("sqlite+aiosqlite", database=str(folder / FILE))


@asynccontextmanager
async def open_history(url: URL) -> AsyncIterator[History]:
    """
    Yield the history, with its tables in the newest form, to one service at a time.

    Raises `ConfigurationError` where another service holds it, `DatabaseError` where it cannot
    be used.
    """
    backend = backend_of(url)
    async with closing(backend.create_engine(url, pool_size=_CONNECTIONS)) as engine:
        lock = _file_lock if url.get_backend_name() == "sqlite" else _server_lock
        try:
            async with lock(engine):
                writing = backend.session_factories(engine, reads_autocommit=True)[0]
                async with writing.begin() as session:
                    await (await session.connection()).run_sync(migrate)
                yield History(engine)
        except AsyncLoaderError:
            raise
        except (DBAPIError, OSError) as error:
            raise unreachable(error, url) from error


@asynccontextmanager
async def _file_lock(engine: AsyncEngine) -> AsyncIterator[None]:
    """Hold a lock file beside the database; the kernel drops it however we end."""
    path = Path(f"{engine.url.database}.lock")
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise _taken(engine.url) from None
    finally:
        os.close(descriptor)


@asynccontextmanager
async def _server_lock(engine: AsyncEngine) -> AsyncIterator[None]:
    """Hold an advisory lock for as long as the connection lives."""
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        if not await connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": _LOCK}):
            raise _taken(engine.url)
        yield


def _taken(url: URL) -> ConfigurationError:
    return ConfigurationError(
        f"another service uses the history at {place(url)}: give this one a --history-url"
    )

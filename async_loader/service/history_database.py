"""The history's database: found or made, migrated, and held against a second service."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import platformdirs
from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ..concurrency.tasks import cancel
from ..database.backends import backend_of
from ..database.postgresql import closing, first_line, unreachable
from ..database.urls import parse_url, place
from ..errors import AsyncLoaderError, ConfigurationError, DatabaseError
from .history import NO_HISTORY, History
from .migrations import migrate

FILE = "history.sqlite"
# Results tell tables, errors and who did what: they are for whoever runs the service.
_MODE = 0o600
_CONNECTIONS = 5
_LOOK_EVERY = 2.0
_LOCK = 0x41534C44_53455256  # "ASLDSERV"


def history_url(url: str | None) -> URL:
    """Return where the history is: the user's data directory, unless a URL says otherwise."""
    if url is not None:
        try:
            return parse_url(url)
        except ConfigurationError as error:
            message = str(error).replace("`database_url`", "--history-url")
            raise ConfigurationError(message) from None
    folder = platformdirs.user_data_path("async_loader", appauthor=False)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)  # it may have been there before
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
    async with AsyncExitStack() as stack:
        try:
            history = await _opened(url, stack)
        except AsyncLoaderError:
            raise
        except (DBAPIError, OSError) as error:
            raise _unusable(error, url) from error
        yield history


async def _opened(url: URL, stack: AsyncExitStack) -> History:
    backend = backend_of(url)
    engine = backend.create_engine(url, pool_size=_CONNECTIONS)
    await stack.enter_async_context(closing(engine))
    history = History(engine)
    lock = _file_lock if _is_file(url) else _server_lock
    await stack.enter_async_context(lock(engine, history))
    writing = backend.session_factories(engine, reads_autocommit=True)[0]
    async with writing.begin() as session:
        await (await session.connection()).run_sync(migrate)
    return history


@asynccontextmanager
async def _file_lock(engine: AsyncEngine, _history: History) -> AsyncIterator[None]:
    """Hold a lock file beside the database; the kernel drops it however we end."""
    path = Path(f"{engine.url.database}.lock")
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, _MODE)
    _keep_private(Path(str(engine.url.database)))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise _taken(engine.url) from None
    finally:
        os.close(descriptor)


def _keep_private(database: Path) -> None:
    """Let nobody else read the history: SQLite gives its other files the mode of the first."""
    os.close(os.open(database, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, _MODE))
    for ending in ("", "-wal", "-shm", "-journal", ".lock"):
        with suppress(FileNotFoundError, PermissionError):  # the file of another account
            Path(f"{database}{ending}").chmod(_MODE)


@asynccontextmanager
async def _server_lock(engine: AsyncEngine, history: History) -> AsyncIterator[None]:
    """Hold an advisory lock, taken again where the server has cut its connection."""
    async with aclosing(_AdvisoryLock(engine)) as lock:
        if not await lock.is_ours():
            raise _taken(engine.url)
        keeper = asyncio.create_task(_keep(lock, history))
        try:
            yield
        finally:
            await cancel(keeper)


async def _keep(lock: _AdvisoryLock, history: History) -> None:
    """See to the lock until cancelled; `history.held` says whether we have it."""
    while True:
        await asyncio.sleep(_LOOK_EVERY)
        try:
            history.held = await lock.is_ours()
        except NO_HISTORY:
            history.held = False


class _AdvisoryLock:
    """A lock of the server's, on a connection of its own, with which it ends."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._connection: AsyncConnection | None = None
        self._driver: Any = None
        self._ours = False

    async def is_ours(self) -> bool:
        """Return whether we have it, taken now if it is free."""
        if self._connection is None or self._driver.is_closed():
            await self.aclose()
            self._connection = await self._engine.connect()
            self._driver = (await self._connection.get_raw_connection()).driver_connection
        if not self._ours:
            query = text("SELECT pg_try_advisory_lock(:key)")
            self._ours = bool(await self._connection.scalar(query, {"key": _LOCK}))
        return self._ours

    async def aclose(self) -> None:
        """Give it up."""
        if self._connection is not None:
            self._ours = False
            await self._connection.invalidate()
            await self._connection.close()
            self._connection = None


def _taken(url: URL) -> ConfigurationError:
    return ConfigurationError(
        f"another service uses the history at {place(url)}: give this one a --history-url"
    )


def _is_file(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _unusable(error: DBAPIError | OSError, url: URL) -> DatabaseError:
    """Return the one line that tells a user why there is no history."""
    if _is_file(url):
        why = error.strerror if isinstance(error, OSError) else first_line(error)
        return DatabaseError(f"no history can be kept in {place(url)}: {why}; see --history-url")
    return DatabaseError(str(unreachable(error, url)).replace("`database_url`", "--history-url"))

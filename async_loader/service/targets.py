"""Targets: the databases that the server's configuration names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from ..database.backends import backend_of
from ..database.postgresql import closing, unreachable
from ..database.urls import parse_url
from ..errors import AsyncLoaderError, ConfigurationError, DatabaseError
from ..load.run_database import server_url
from ..load.specs.load_test import DatabaseSpec
from ..settings.serve import EMBEDDED
from .path_redaction import place_of

# What looks at a target: a list, a status, a move.
_CONNECTIONS = 2


class Targets:
    """The targets by name. Our own server is started when it is first asked for, and then held."""

    def __init__(self, urls: Mapping[str, str], directory: Path | None) -> None:
        self._urls = dict(urls)
        self._directory = directory
        self._stack = AsyncExitStack()
        self._embedded: URL | None = None
        self._starting = asyncio.Lock()
        for name, url in self._urls.items():
            if url != EMBEDDED:
                try:
                    parse_url(url)
                except ConfigurationError as error:
                    message = str(error).replace("`database_url`", f"--target {name}")
                    raise ConfigurationError(message) from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        await self._stack.aclose()

    @property
    def names(self) -> list[str]:
        """The names that a request can use."""
        return list(self._urls)

    @property
    def directory(self) -> Path | None:
        """The embedded server's folder, None for the default one."""
        return self._directory

    def __contains__(self, name: str) -> bool:
        return name in self._urls

    def url_for_run(self, name: str) -> str | None:
        """Return the URL as a run's settings take it: None is our own server."""
        url = self._urls[name]
        return None if url == EMBEDDED else url

    def is_remote(self, name: str) -> bool:
        """Whether it is a server that somebody else sees to."""
        url = self.url_for_run(name)
        return url is not None and parse_url(url).get_backend_name() != "sqlite"

    def place_of(self, name: str) -> str:
        """Return where it is, for people: no user, no password and no folder."""
        url = self._urls[name]
        return "embedded PostgreSQL" if url == EMBEDDED else place_of(parse_url(url))

    async def url(self, name: str) -> URL:
        """Return the URL to connect to; raises an `AsyncLoaderError`."""
        if (url := self.url_for_run(name)) is not None:
            return parse_url(url)
        async with self._starting:
            if self._embedded is None:
                options = DatabaseSpec(server_directory=self._directory)
                self._embedded = await self._stack.enter_async_context(
                    server_url(options, lambda _phase: None)
                )
        return self._embedded

    @asynccontextmanager
    async def engine(self, name: str) -> AsyncIterator[AsyncEngine]:
        """Yield an engine for a few short statements; raises an `AsyncLoaderError`."""
        url = await self.url(name)
        async with closing(backend_of(url).create_engine(url, pool_size=_CONNECTIONS)) as engine:
            try:
                yield engine
            except AsyncLoaderError:
                raise
            except (DBAPIError, OSError) as error:
                raise DatabaseError(in_our_words(str(unreachable(error, url)))) from error

    async def clean(self, name: str) -> None:
        """Remove what dead runs left on a target, as every run does before it begins."""
        url = await self.url(name)
        async with backend_of(url).run_namespace(url):
            pass


def in_our_words(message: str) -> str:
    """Return an error of the rooms below with the flag that a target's URL comes by."""
    return message.replace("`database_url`", "--target")

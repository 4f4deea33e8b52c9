"""
A TCP proxy in front of a database server: a longer network, and a count of round trips.

    async with Proxy(url, delay=0.0015) as proxy:
        engine = create_async_engine(proxy.url)
        ...
        before = proxy.round_trips
"""

from __future__ import annotations

import asyncio
from asyncio import Queue, StreamReader, StreamWriter
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from sqlalchemy.engine import URL, make_url

_CHUNK = 2**16
_CHUNKS_UNDERWAY = 256  # what a slow reader lets pile up before its writer has to wait


@dataclass(eq=False, slots=True)
class Link:
    """One client's connection and the one made for it to the server."""

    client: StreamWriter
    server: StreamWriter
    client_spoke_last: bool = False


class Proxy:
    """
    A proxy on a free port of 127.0.0.1, to the host and port or Unix socket of a database URL.

    `delay` in seconds is added each way, to all bytes alike: a stream stays a stream. The
    loop's timers make it up to a millisecond longer. `round_trips` counts how often a client
    spoke after its server had: once for a statement, and for several sent together once.
    """

    def __init__(self, url: URL | str, *, delay: float = 0.0) -> None:
        self._target = make_url(url)
        self.delay = delay
        self.round_trips = 0
        self.links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None
        self._port = 0

    @property
    def url(self) -> URL:
        """The URL of the same database by way of this proxy."""
        query = {k: v for k, v in self._target.query.items() if k not in ("host", "port")}
        return self._target.set(host="127.0.0.1", port=self._port, query=query)

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.refuse()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def listen(self) -> None:
        """Accept connections, on the same port as before if there was one."""
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        self._port = self._listener.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Accept no more connections; those that are open stay open."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def pass_on(self, link: Link, data: bytes, *, to_server: bool) -> bytes:
        """
        Return what is sent on of `data`, which is empty at the end of the stream.

        For subclasses: they may hold it back, look at it, swallow it, or break the link off.
        """
        del link, to_server
        return data

    def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, from_client: StreamReader, client: StreamWriter) -> None:
        try:
            with suppress(OSError):
                from_server, server = await self._connect()
                link = Link(client, server)
                self.links.add(link)
                try:
                    await self._relay(link, from_client, from_server)
                finally:
                    self.links.discard(link)
                    server.transport.abort()
        finally:
            client.transport.abort()

    async def _connect(self) -> tuple[StreamReader, StreamWriter]:
        host = self._target.host or self._target.query.get("host", "127.0.0.1")
        port = self._target.port or self._target.query.get("port", "5432")
        assert isinstance(host, str)
        assert isinstance(port, int | str)
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, int(port))

    async def _relay(self, link: Link, client: StreamReader, server: StreamReader) -> None:
        """Carry both ways until both sides have closed, or one is broken off."""
        try:
            async with asyncio.TaskGroup() as group:
                for reader, writer in ((client, link.server), (server, link.client)):
                    underway: Queue[tuple[float, bytes]] = Queue(_CHUNKS_UNDERWAY)
                    group.create_task(self._receive(link, reader, underway, writer is link.server))
                    group.create_task(_deliver(underway, writer))
        except* OSError:
            pass  # the caller breaks off the other side as well

    async def _receive(
        self,
        link: Link,
        reader: StreamReader,
        underway: Queue[tuple[float, bytes]],
        to_server: bool,
    ) -> None:
        now = asyncio.get_running_loop().time
        while True:
            data = await reader.read(_CHUNK)
            if data:
                self.round_trips += to_server and not link.client_spoke_last
                link.client_spoke_last = to_server
            sent_on = await self.pass_on(link, data, to_server=to_server)
            if sent_on or not data:
                await underway.put((now() + self.delay, sent_on))
            if not data:
                return


async def _deliver(underway: Queue[tuple[float, bytes]], writer: StreamWriter) -> None:
    now = asyncio.get_running_loop().time
    while True:
        due, data = await underway.get()
        if (wait := due - now()) > 0:
            await asyncio.sleep(wait)
        if not data:
            writer.write_eof()
            return
        writer.write(data)
        await writer.drain()

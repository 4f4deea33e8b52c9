"""A proxy that does to connections what networks and dying servers do."""

from __future__ import annotations

import asyncio
import socket
import struct

from sqlalchemy.engine import URL

from async_loader.database.proxy import Link, Proxy

# asyncpg's transactions end with a simple query, alone in its packet.
COMMIT = b"Q\x00\x00\x00\x0cCOMMIT;\x00"


class FaultProxy(Proxy):
    """
    Black holes, resets and lost replies, beside the delay and `refuse` of every proxy.

    In a black hole bytes wait, as they do where a network is cut: TCP sends them again when
    it is back.
    """

    def __init__(self, url: URL | str) -> None:
        super().__init__(url)
        self.commits = 0
        self.lost = 0
        self._to_lose = 0
        self._losing: set[Link] = set()
        self._open = {True: asyncio.Event(), False: asyncio.Event()}
        self.heal()

    def black_hole(self, *, to_server: bool = True, to_client: bool = True) -> None:
        """From now on nothing arrives in these directions, no end of a stream either."""
        for direction, on in ((True, to_server), (False, to_client)):
            if on:
                self._open[direction].clear()

    def heal(self) -> None:
        """Let everything through again."""
        for gate in self._open.values():
            gate.set()

    def reset(self) -> None:
        """Break every link off; both sides see a reset."""
        for link in tuple(self.links):
            _reset(link)

    def lose_replies_to_commit(self, count: int) -> None:
        """Swallow the next replies to a COMMIT, and break their links off."""
        self._to_lose += count

    async def pass_on(self, link: Link, data: bytes, *, to_server: bool) -> bytes:
        await self._open[to_server].wait()
        if to_server and data.endswith(COMMIT):
            self.commits += 1
            if self._to_lose:
                self._to_lose -= 1
                self._losing.add(link)
        elif not to_server and link in self._losing:
            self._losing.discard(link)
            self.lost += 1
            _reset(link)
            return b""
        return data


def _reset(link: Link) -> None:
    for writer in (link.client, link.server):
        found = writer.get_extra_info("socket")
        if found is not None and found.family != socket.AF_UNIX:
            # No lingering: closed so, a TCP socket sends RST.
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

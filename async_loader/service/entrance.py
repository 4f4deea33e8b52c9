"""
Every connection from its first packet: how many there may be, and how long a handshake takes.

A connection is *silent* until its request is whole, and again behind its answer. Where there are
too many, in all or from one address, the one that is silent for longest gives way to the one that
comes; who is answered is left alone, and where all are, the newcomer is cut. uvicorn's own server
would count from the end of a TLS handshake on.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from .connections import Connections
from .protocol import GuardedProtocol

log = logging.getLogger("async_loader.service")

# For a handshake to be over.
HANDSHAKE = 10.0
# Where nothing can be accepted: no descriptor, no memory.
_PAUSE = 0.1
# File descriptors that no client gets: the history's, the runs', the targets', the files'.
_RESERVE = 128


class Entrance:
    """Lets connections in, each with a protocol of `make`, as long as `keep` goes on."""

    def __init__(
        self,
        listener: socket.socket,
        connections: Connections,
        context: ssl.SSLContext | None,
        make: Callable[[], GuardedProtocol],
    ) -> None:
        self._listener = listener
        self._connections = connections
        self._context = context
        self._make = make
        self._tasks: set[asyncio.Task[None]] = set()

    async def keep(self) -> None:
        """Let in who comes, until cancelled; handshakes end then."""
        loop = asyncio.get_running_loop()
        self._listener.setblocking(False)
        try:
            while True:
                try:
                    accepted, peer = await loop.sock_accept(self._listener)
                except OSError as error:
                    log.warning("a connection was not accepted: %s", error.strerror)
                    await asyncio.sleep(_PAUSE)
                    continue
                self._let_in(accepted, str(peer[0]))
        finally:
            for task in self._tasks:
                task.cancel()

    def _let_in(self, accepted: socket.socket, address: str) -> None:
        visit = Visit(address)
        if not self._connections.enter(visit):
            accepted.close()
            return
        visit.task = asyncio.get_running_loop().create_task(self._begin(visit, accepted))
        self._tasks.add(visit.task)
        visit.task.add_done_callback(partial(self._begun, visit, accepted))

    async def _begin(self, visit: Visit, accepted: socket.socket) -> None:
        """Bring a connection to its protocol, through a handshake where there is to be one."""

        def protocol() -> GuardedProtocol:
            made = self._make()
            made.is_guarded_by(self._connections, visit)
            return made

        timeout = None if self._context is None else HANDSHAKE
        try:
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                protocol, accepted, ssl=self._context, ssl_handshake_timeout=timeout
            )
        except OSError:  # slow, gone, or no TLS
            return
        visit.transport = transport

    def _begun(self, visit: Visit, accepted: socket.socket, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if visit.transport is None:  # it may have been cut before anything was begun
            accepted.close()
            self._connections.leave(visit)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a connection met a defect: %s", error, exc_info=error)


class Visit:
    """A connection from its acceptance on."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.task: asyncio.Task[None] | None = None
        self.transport: asyncio.Transport | None = None

    def abort(self) -> None:
        """Cut it, in its handshake or behind that."""
        if self.transport is not None:
            self.transport.abort()
        elif self.task is not None:
            self.task.cancel()


def room_for(most: int) -> int:
    """Return how many connections there may be, with descriptors for everything else in reserve."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return most
    wanted = most + _RESERVE
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    room = max(1, min(most, soft - _RESERVE))
    if room < most:
        log.warning("%d connections at once, not %d: this process may open no more", room, most)
    return room

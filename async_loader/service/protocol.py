"""A connection that cannot be held for nothing: not by silence, not by never reading."""

from __future__ import annotations

import asyncio
import socket
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from .connections import Connection, Connections
from .guard import HEADERS
from .problems import answer

# For a request to come whole (its body has a limit of its own), and for a reader to read on.
REQUEST = 10.0
STALLED = 30.0


class GuardedProtocol(H11Protocol):
    """uvicorn's own, which cuts off who sends no request or reads no answer."""

    _connections: Connections
    _connection: Connection

    def is_guarded_by(self, connections: Connections, connection: Connection) -> None:
        """Tell these whether this connection waits for its client."""
        self._connections = connections
        self._connection = connection

    def connection_made(self, transport: Any) -> None:
        """Wait for a request, for so long."""
        super().connection_made(transport)
        self._silent = _Timer(self.loop, transport)
        self._stalled = _Timer(self.loop, transport)
        # asyncio does it for sockets of its own making only; without it an answer's body waits
        # for its head's acknowledgement, for 40 ms.
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._silent.start(REQUEST)

    def data_received(self, data: bytes) -> None:
        """See whether a request is whole, and wait for the rest where it is not."""
        super().data_received(data)
        answering: RequestResponseCycle | None = self.cycle
        if answering is not None and not answering.response_complete:
            self._silent.stop()
            self._connections.busy(self._connection)
        else:
            self._silent.start(REQUEST)
            self._connections.silent(self._connection)

    def on_response_complete(self) -> None:
        """Note that the next word is the client's."""
        super().on_response_complete()
        if self.cycle.response_complete:
            self._connections.silent(self._connection)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP as everything else is refused; the application never sees it."""
        headers = {**HEADERS, "Cache-Control": "no-store", "Connection": "close"}
        refusal = answer(400, msg.rstrip("."), headers=headers)
        head = h11.Response(
            status_code=400, headers=refusal.raw_headers, reason=HTTPStatus(400).phrase.encode()
        )
        for part in (head, h11.Data(data=bytes(refusal.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(part))
        self.transport.close()

    def pause_writing(self) -> None:
        """Note that a reader is behind by a buffer."""
        super().pause_writing()
        self._stalled.start(STALLED)

    def resume_writing(self) -> None:
        """Note that it reads."""
        super().resume_writing()
        self._stalled.stop()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget everything."""
        self._connections.leave(self._connection)
        self._silent.stop()
        self._stalled.stop()
        super().connection_lost(exc)


class _Timer:
    """
    Aborts a connection when it runs out. One that runs is not started again.

    It knows no protocol, which holds it: what a watcher took would wait for the garbage collector.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.WriteTransport) -> None:
        self._loop = loop
        self._transport = transport
        self._handle: asyncio.TimerHandle | None = None

    def start(self, seconds: float) -> None:
        if self._handle is None:
            self._handle = self._loop.call_later(seconds, self._transport.abort)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

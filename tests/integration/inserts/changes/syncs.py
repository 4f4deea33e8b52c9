"""Count the points at which a client waits for the server: each Sync, each simple query."""

from __future__ import annotations

import struct
from typing import Any

from async_loader.database.proxy import Link, Proxy

_SSL_REQUEST, _GSS_REQUEST = 80877103, 80877104


class Syncs(Proxy):
    """A proxy that reads what clients send.

    Changes of direction say less of a pipeline: the server may answer while it is being filled.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.syncs = 0
        self._unread: dict[Link, bytes] = {}
        self._started: set[Link] = set()

    async def pass_on(self, link: Link, data: bytes, *, to_server: bool) -> bytes:
        """Count, and send on what came."""
        if to_server:
            self._read(link, self._unread.get(link, b"") + data)
        return data

    def _read(self, link: Link, data: bytes) -> None:
        while True:
            first = 0 if link not in self._started else 1  # a start has no type
            if len(data) < first + 4:
                break
            (size,) = struct.unpack_from("!i", data, first)
            if len(data) < first + size:
                break
            if first:
                self.syncs += data[:1] in (b"S", b"Q")
            elif struct.unpack_from("!i", data, 4)[0] not in (_SSL_REQUEST, _GSS_REQUEST):
                self._started.add(link)
            data = data[first + size :]
        self._unread[link] = data

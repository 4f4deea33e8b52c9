"""Server-sent events as an answer, and how many may listen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..concurrency.tasks import cancel
from .problems import Problem

_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
# What a browser waits before it connects again, in milliseconds.
_BEGIN = b"retry: 2000\n\n"


class Watchers:
    """How many watch."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.now = 0

    def join(self) -> None:
        """Count one more; raises `Problem`."""
        if self.now >= self._most:
            raise Problem(503, f"{self._most} watch already", headers={"Retry-After": "10"})
        self.now += 1

    def leave(self) -> None:
        """Count one less."""
        self.now -= 1


class EventStream(Response):
    """Events until they end or the watcher goes."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], watchers: Watchers) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._events = events
        self._watchers = watchers

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send them; raises `Problem` where too many watch."""
        self._watchers.join()  # here, where nothing can come between it and leaving
        sending = asyncio.create_task(self._send_all(send))
        leaving = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            self._watchers.leave()
            await cancel(sending, leaving)

    async def _send_all(self, send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        await send({"type": "http.response.body", "body": _BEGIN, "more_body": True})
        async for chunk in self._events:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    """Return when the watcher has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass

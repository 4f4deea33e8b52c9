"""An ASGI application in this process, started and stopped as a server starts and stops it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from ..concurrency.tasks import cancel

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class Lifespan:
    """
    An application with its lifespan, which httpx's `ASGITransport` alone does not run::

        lifespan = Lifespan(app)

        @workload.setup
        async def connect() -> httpx.AsyncClient:
            await lifespan.start()
            return httpx.AsyncClient(transport=httpx.ASGITransport(lifespan), base_url="http://app")

        @workload.teardown
        async def disconnect() -> None:
            await lifespan.stop()

    It is run in a task of its own from `start` to `stop`, so that what it enters in one task it
    leaves in the same. What it yields is in the state of each request.
    """

    def __init__(self, app: Application) -> None:
        self._app = app
        self._state: dict[str, Any] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the application; raises what its lifespan raises."""
        self._state = {}
        self._told = asyncio.Queue[MutableMapping[str, Any]]()
        self._said = asyncio.Queue[MutableMapping[str, Any]]()
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": self._state}
        self._task = asyncio.create_task(self._live(scope))
        await self._tell("startup")

    async def _live(self, scope: Scope) -> None:
        await self._app(scope, self._told.get, self._said.put)

    async def stop(self) -> None:
        """Stop the application, where it has been started."""
        if self._task is None:
            return
        try:
            if not self._task.done():
                await self._tell("shutdown")
        finally:
            await cancel(self._task)
            self._task = None

    async def _tell(self, what: str) -> None:
        """Tell the lifespan what is to be, and wait until it is."""
        assert self._task is not None
        self._told.put_nowait({"type": f"lifespan.{what}"})
        said = asyncio.create_task(self._said.get())
        either: set[asyncio.Task[Any]] = {said, self._task}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            said.cancel()
        if not said.done() or said.cancelled():
            return  # it has none: an application may leave it out, or refuse to be asked
        if said.result()["type"] == f"lifespan.{what}.failed":
            error = await _error_of(self._task)
            raise error or RuntimeError(f"the application's {what} failed")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the application answer a request, with what its lifespan has made."""
        await self._app({**scope, "state": dict(self._state)}, receive, send)


async def _error_of(task: asyncio.Task[None]) -> BaseException | None:
    """Return what a lifespan that failed raises, once it has said so."""
    await asyncio.wait({task}, timeout=1)
    return task.exception() if task.done() and not task.cancelled() else None

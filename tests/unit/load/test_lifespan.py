"""An ASGI application in this process: started, asked and stopped as by a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import httpx
import pytest
from fastapi import FastAPI, Request

from async_loader import Lifespan, SetupError, Workload, run


def application(log: list[str], *, fails: str = "") -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        log.append("started")
        if fails == "startup":
            raise LookupError("no broker")
        async with anyio.create_task_group():  # to be left in the task that entered it
            yield {"greeting": f"hello {len(log)}"}
        log.append("stopped")
        if fails == "shutdown":
            raise LookupError("no broker")

    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    async def root(request: Request) -> str:
        return str(request.state.greeting)

    return app


async def said(lifespan: Lifespan) -> str:
    transport = httpx.ASGITransport(app=lifespan)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        return str((await client.get("/")).json())


async def test_it_is_started_and_stopped_in_other_tasks() -> None:
    log = list[str]()
    lifespan = Lifespan(application(log))
    for number in (1, 3):  # a run after a run
        await asyncio.create_task(lifespan.start())
        assert await said(lifespan) == f"hello {number}"
        await asyncio.create_task(lifespan.stop())
    assert log == ["started", "stopped"] * 2
    await lifespan.stop()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_one_that_cannot_start_is_a_set_up_that_raised() -> None:
    lifespan, workload = Lifespan(application([], fails="startup")), Workload("api")
    workload.setup(lifespan.start)

    @workload.operation("ask")
    async def ask() -> None: ...

    with pytest.raises(SetupError, match="no broker"):
        await run(workload, ops=1)
    await lifespan.stop()


async def test_one_that_cannot_stop_says_so() -> None:
    lifespan = Lifespan(application([], fails="shutdown"))
    await lifespan.start()
    with pytest.raises(BaseException, match="no broker"):
        await lifespan.stop()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_application_needs_none() -> None:
    async def bare(scope: object, receive: object, send: object) -> None:
        assert isinstance(scope, dict)
        if scope["type"] == "lifespan":
            raise NotImplementedError

    lifespan = Lifespan(bare)
    await lifespan.start()
    await lifespan.stop()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}

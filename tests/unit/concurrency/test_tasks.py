"""Waiting for what others do."""

from __future__ import annotations

import asyncio
import gc
from concurrent.futures import Future
from typing import Any

import pytest

from async_loader.concurrency.tasks import answer_of
from async_loader.errors import WorkerLostError


async def test_an_answer_that_is_waited_for() -> None:
    asked: Future[int] = Future()
    answer = answer_of(asked)
    asked.set_exception(WorkerLostError("process 1", "died"))
    with pytest.raises(WorkerLostError, match="process 1 died"):
        await answer


@pytest.mark.parametrize("waits", ["no more", "in vain"])
async def test_one_that_comes_too_late_is_no_complaint(waits: str) -> None:
    complaints: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    asked: Future[int] = Future()
    asked.set_running_or_notify_cancel()

    async def wait(asked: Future[int]) -> None:
        await asyncio.wait({answer_of(asked)}, timeout=0.0 if waits == "in vain" else None)

    waiting = asyncio.create_task(wait(asked))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    asked.set_exception(WorkerLostError("process 1", "was left"))
    await asyncio.sleep(0.01)
    del asked, waiting
    gc.collect()
    assert complaints == []

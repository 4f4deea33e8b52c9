"""Work done side by side, with a bound on what is in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from itertools import islice
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


async def side_by_side(
    items: Iterable[In], work: Callable[[In], Awaitable[Out]], most: int
) -> AsyncGenerator[list[Out], None]:
    """
    Yield what `work` makes of items, several at a time, as they get ready.

    At most `most` are in work, ready, or with whoever takes them: a list that was yielded is
    emptied when the next is asked for. Half of them are yielded together, while the others are
    in work. What `work` raises is raised here, and ends the rest.
    """
    half = max(1, most // 2)
    waiting = iter(items)
    running: set[asyncio.Future[Out]] = set()
    ready: list[Out] = []
    try:
        while True:
            free = most - len(running) - len(ready)
            running |= {asyncio.ensure_future(work(item)) for item in islice(waiting, free)}
            if not running and not ready:
                return
            while running and len(ready) < half:
                ended, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                ready += [future.result() for future in ended]
                ended.clear()
            batch, ready = ready[:half], ready[half:]
            yield batch
            batch.clear()
    finally:
        for future in running:
            future.cancel()
        await asyncio.gather(*running, return_exceptions=True)

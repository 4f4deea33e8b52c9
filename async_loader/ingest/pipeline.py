"""Work begun before it is asked for, with a bound on what is in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from itertools import chain, islice
from typing import Generic, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


class Ahead(AbstractAsyncContextManager["Ahead[In, Out]"], Generic[In, Out]):
    """
    What `work` makes of items, several at a time, in the order in which they are expected.

    At most `most` are in work, ready, or with the one who takes them. Whatever else is begun is
    ended with the block.
    """

    def __init__(self, work: Callable[[In], Awaitable[Out]], most: int) -> None:
        self._work = work
        self._most = most
        self._coming: Iterator[In] = iter(())
        self._begun: dict[In, asyncio.Future[Out]] = {}

    def expect(self, items: Iterable[In]) -> None:
        """Begin with the first of these, and forget all others; while no list is taken."""
        coming = iter(items)
        first = list(islice(coming, self._most))
        for item in self._begun.keys() - set(first):
            self._begun.pop(item).cancel()
        self._coming = chain([item for item in first if item not in self._begun], coming)
        self._begin()

    async def take(self, items: Iterable[In]) -> AsyncGenerator[list[Out], None]:
        """
        Yield what has become of items that are expected, as they get ready.

        Half of what may be in memory is yielded together, while the others are in work. A list
        that was yielded is emptied when the next is asked for. What `work` raises is raised here.
        """
        wanted = set(items)
        while batch := await self._ready(wanted):
            yield batch
            batch.clear()
            self._begin()

    async def __aexit__(self, *_: object) -> None:
        begun = list(self._begun.values())
        self._begun.clear()
        for future in begun:
            future.cancel()
        await asyncio.gather(*begun, return_exceptions=True)

    def _begin(self) -> None:
        for item in islice(self._coming, self._most - len(self._begun)):
            self._begun[item] = asyncio.ensure_future(self._work(item))

    async def _ready(self, wanted: set[In]) -> list[Out]:
        """Return the results of some of what is wanted, which is less afterwards."""
        mine = {item: future for item, future in self._begun.items() if item in wanted}
        some = min(len(mine), max(1, self._most // 2))
        while sum(future.done() for future in mine.values()) < some:
            unfinished = [future for future in mine.values() if not future.done()]
            await asyncio.wait(unfinished, return_when=asyncio.FIRST_COMPLETED)
        ready = list(islice((item for item, future in mine.items() if future.done()), some))
        wanted -= set(ready)
        return [self._begun.pop(item).result() for item in ready]

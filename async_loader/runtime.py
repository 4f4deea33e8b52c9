"""What a process does once for a run: its event loop, its collector, its signals."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from .errors import MissingExtraError
from .limits import Stop

T = TypeVar("T")
Work = Callable[[Stop], Coroutine[Any, Any, T]]

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Two requests are the run's to heed; whoever asks once more wants no clean-up either.
_PATIENCE = 2


def run_until_stopped(work: Work[T], loop: str) -> T:
    """
    Run `work(stop)` on a loop of the wanted kind and return what it returns.

    SIGINT and SIGTERM end it: first drain, then at once, then without mercy. Before the run
    there is nothing to drain, and the first one ends it with `asyncio.CancelledError`.
    """
    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        spare_the_garbage_collector()
        return runner.run(_stoppable(work))


async def _stoppable(work: Work[T]) -> T:
    stop = Stop()
    task = asyncio.ensure_future(work(stop))
    asked = 0

    def on_signal() -> None:
        nonlocal asked
        asked += 1
        stop.request()
        if asked > _PATIENCE or not stop.heeded:
            task.cancel()

    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, on_signal)
    return await task


def loop_factory(choice: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """
    Return how to make the event loop: `uvloop`, `asyncio`, or `auto` for the faster one.

    None is asyncio's own. Raises `MissingExtraError` where uvloop is wanted and missing.
    """
    if choice == "asyncio":
        return None
    try:
        import uvloop  # noqa: PLC0415  it does not exist everywhere
    except ImportError:
        if choice == "uvloop":
            raise MissingExtraError("--loop uvloop", "cli") from None
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def spare_the_garbage_collector() -> None:
    """
    Let it pass by what lives as long as the process, and look less often.

    An ORM operation makes hundreds of short-lived objects, each some hundredth of a
    collection that walks all modules: 15 % of the CPU of a mixed operation.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)

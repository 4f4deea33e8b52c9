"""A request to stop, on its way to who works elsewhere."""

from __future__ import annotations

from ..concurrency.stop import Stop
from .contract import Halt, Workers


async def pass_on(stop: Stop, workers: Workers) -> None:
    """Tell all workers of each request to stop, until cancelled."""
    for asked in (stop.requested, stop.at_once):
        await asked.wait()
        for index in range(len(workers.names)):
            workers.tell(index, Halt(stop.by))

"""A run's process, told from another that was given the same number later."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import psutil

# A worker ends itself within seconds of the service's death; one that cannot is ended.
_PATIENCE = 15.0
_LOOK_EVERY = 0.1
# A creation time is reckoned from the machine's start, which a corrected clock moves.
_TOLERANCE = 2.0


def identity(pid: int) -> dict[str, Any] | None:
    """Return what tells a living process from all others, None for one that is gone."""
    try:
        return {"pid": pid, "created": psutil.Process(pid).create_time()}
    except psutil.Error:
        return None


async def wait_for_end(known: dict[str, Any]) -> None:
    """Wait until a process that `identity` told of is gone; kill it when that takes long."""
    loop = asyncio.get_running_loop()
    patience = loop.time() + _PATIENCE
    while _is_alive(known):
        if loop.time() > patience:
            with suppress(psutil.Error):
                psutil.Process(known["pid"]).kill()
        await asyncio.sleep(_LOOK_EVERY)


def _is_alive(known: dict[str, Any]) -> bool:
    found = identity(known["pid"])
    return found is not None and abs(found["created"] - known["created"]) < _TOLERANCE

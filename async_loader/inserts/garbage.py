"""
The garbage collector, held while many objects are walked.

A flush of 100,000 objects allocates a few tuples for each and reads as many rows back, and every
so many of them the collector walks all objects of the process to find no garbage. It is held for
large flushes only, one statement or pass at a time, and let go in `finally`; what other tasks
allocate meanwhile is collected afterwards.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

WORTHWHILE = 2000  # objects; below that the collector costs less than holding it

_NOTHING = nullcontext()

_lock = threading.Lock()
_holders = 0
_was_enabled = False


def gc_paused(count: int) -> AbstractContextManager[None]:
    """Hold the collector if that many objects are worth it."""
    return _held() if count >= WORTHWHILE else _NOTHING


@contextmanager
def _held() -> Iterator[None]:
    global _holders, _was_enabled  # noqa: PLW0603  # threads share one collector
    with _lock:
        if _holders == 0:
            _was_enabled = gc.isenabled()
            gc.disable()
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if _holders == 0 and _was_enabled:
                _age()
                gc.enable()


def _age() -> None:
    """
    Move what was allocated meanwhile to the oldest generation, without walking it.

    Else the first allocation afterwards would walk all of it at once, for what a flush leaves
    is no garbage. What an application has frozen itself would be thawed: then nothing is moved.
    """
    if gc.get_freeze_count() == 0:
        gc.freeze()
        gc.unfreeze()

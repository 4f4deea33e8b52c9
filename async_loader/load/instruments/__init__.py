"""
Where the time of operations goes, read off every engine of the process.

    times       what one operation has spent, and on what
    steps       its coroutine driven step by step: when it ran, and when it waited
    windows     what it waits for: pool, connect, ping, database
    pools       SQLAlchemy's pools: who waits, who has a connection, who never gave it back
    dialects    SQLAlchemy's dialects: statements
    loop_meter  the rounds of the event loop: what of a wait was the loop's queue
    attaching   all of it, for the time of a run

All that is set on SQLAlchemy is set on its classes, and taken away again with the last run: an
engine is measured whoever made it, before the run, in its set-up or in an operation.
"""

from __future__ import annotations

from ...concurrency.tasks import holder
from .attaching import Instruments, attached, break_off
from .pools import PoolWatch, Taken
from .times import OperationTimes, current_times

__all__ = [
    "Instruments",
    "OperationTimes",
    "PoolWatch",
    "Taken",
    "attached",
    "break_off",
    "current_times",
    "holder",
]

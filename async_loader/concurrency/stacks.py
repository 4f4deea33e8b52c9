"""What a thread is at, seen from another one: whose code, and which line of the user's."""

from __future__ import annotations

import gc
import inspect
import selectors
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Literal

from ..failures.source_lines import BUILT_IN, PACKAGE, origin_of

Owner = Literal["sqlalchemy", "driver", "application", "async_loader", "loop"]

_MOST_FRAMES = 200
_DRIVERS = ("asyncpg", "psycopg", "psycopg_pool", "psycopg2", "aiosqlite", "sqlite3", "greenlet")
_RUNS = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
_SELECTS = {
    function.__code__
    for kind in vars(selectors).values()
    if isinstance(kind, type) and inspect.isfunction(function := getattr(kind, "select", None))
}


def stack_of(thread: int, base: Collection[CodeType] = ()) -> list[FrameType]:
    """
    Return a thread's frames, the innermost first, up to those that run the code of the `base`.

    None of a thread that is no more.
    """
    found: list[FrameType] = []
    with _no_collection():
        frame = sys._current_frames().get(thread)
        while frame is not None and frame.f_code not in base and len(found) < _MOST_FRAMES:
            found.append(frame)
            frame = frame.f_back
    return found


@contextmanager
def _no_collection() -> Iterator[None]:
    """
    Keep the garbage collector from running within the block.

    Before Python 3.12 to make a frame object may collect garbage, whose finalizers may let the
    other thread go on; then its frame is no more, the object refers to memory of something else
    and the process crashes (python/cpython#106883 is one form of it). Later ones collect between
    two instructions only.
    """
    if sys.version_info >= (3, 12) or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def loop_frames() -> set[CodeType]:
    """
    Return the code that a sleeping event loop is in, to be called in a coroutine that it runs.

    That is whoever runs the loop, and the loop's own where it is written in Python.
    """
    frames = list(_outwards(sys._getframe(1)))
    last = max(n for n, frame in enumerate(frames) if frame.f_code.co_flags & _RUNS)
    return {frame.f_code for frame in frames[last + 1 :]} | _SELECTS


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    for _ in range(_MOST_FRAMES):
        if frame is None:
            return
        yield frame
        frame = frame.f_back


def owner_of(stack: list[FrameType]) -> Owner:
    """Return whose code is at work: of the innermost frame that is not Python's own."""
    for frame in stack:
        owner = _owners.get(frame.f_code)
        if owner is None:
            owner = _owners[frame.f_code] = _owner_of_file(frame.f_code.co_filename)
        if owner != "":
            return owner
    return "loop"


_owners: dict[CodeType, Owner | Literal[""]] = {}


def _owner_of_file(filename: str) -> Owner | Literal[""]:
    """Return whose code a file holds; nothing for Python's own, which works for its caller."""
    if filename.startswith(PACKAGE) and not filename.startswith(BUILT_IN):
        return "async_loader"
    parts = Path(filename).parts
    if "hdrh" in parts:  # ours: nobody else records latencies in it here
        return "async_loader"
    if "sqlalchemy" in parts:
        return "sqlalchemy"
    if any(driver in parts for driver in _DRIVERS):
        return "driver"
    return "" if origin_of(filename) == "machinery" else "application"

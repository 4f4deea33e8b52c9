"""
Which line of the user's own code is at work, seen from below.

Between the driver and the line that asked for something lie dozens of frames of libraries, and
with SQLAlchemy's asyncio a change of stacks: the sync half runs in a greenlet, and the
coroutine that waits for it is in the greenlet's parent.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Literal

import greenlet

Origin = Literal["own", "installed", "machinery"]
# File, line and function.
Place = tuple[str, int, str]

PACKAGE = str(Path(__file__).parents[1]) + os.sep
BUILT_IN = str(Path(PACKAGE, "load", "workloads")) + os.sep
_STANDARD = tuple(
    path + os.sep for name in ("stdlib", "platstdlib") if (path := sysconfig.get_paths().get(name))
)
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
# What stands between an operation and its database, wherever it is installed.
_BETWEEN = ("sqlalchemy", "greenlet", "asyncpg", "psycopg", "psycopg_pool", "aiosqlite", "uvloop")
_MOST_FRAMES = 400


@lru_cache(maxsize=4096)
def origin_of(filename: str) -> Origin:
    """
    Return whose code a file holds: the user's own, an installed package's, or machinery.

    Machinery is Python itself, this package, what lies between it and the database, and what
    is compiled. Our built-in workloads count as a user's.
    """
    if filename.startswith(BUILT_IN):
        return "own"
    if filename.startswith((PACKAGE, "<")) or not filename.endswith(".py"):
        return "machinery"
    for folder in _INSTALLED:
        _, found, rest = filename.partition(folder)
        if found:
            package = Path(rest).parts[0].removesuffix(".py")
            return "machinery" if package in _BETWEEN else "installed"
    return "machinery" if filename.startswith(_STANDARD) else "own"


def user_line(lines: Iterable[Place]) -> str | None:
    """
    Return `file:line in function` of the first line that is the user's own.

    `lines` are (file, line, function), the innermost first. Where all code between the database
    and this package's own is installed, the innermost of that; None where all is machinery.
    """
    place = user_place(lines)
    return None if place is None else written(place)


def user_place(lines: Iterable[Place]) -> Place | None:
    """Return the place that `user_line` tells of."""
    installed = None
    for place in lines:
        origin = origin_of(place[0])
        if origin == "own":
            return place
        if origin == "installed" and installed is None:
            installed = place
        if installed is not None and place[0].startswith(PACKAGE):
            break  # who calls operations: beyond is whoever started the run
    return installed


def frames_outwards() -> Iterator[FrameType]:
    """Yield the caller's frames, the innermost first, on through the parents of its greenlet."""
    frame: FrameType | None = sys._getframe(1)
    current = greenlet.getcurrent()
    for _ in range(_MOST_FRAMES):
        while frame is None:
            parent = current.parent
            if parent is None:
                return
            current, frame = parent, parent.gr_frame
        yield frame
        frame = frame.f_back


def user_place_here() -> Place | None:
    """
    Return the place of the user's own innermost line above the caller's.

    Some two microseconds: for each connection that is taken, say. See `user_line`.
    """
    return place_in(frames_outwards())


def awaiting_place_here() -> Place | None:
    """
    Return the place of the user's line that awaits what a greenlet of SQLAlchemy's does here.

    That is a handful of frames, and SQLAlchemy's own within the greenlet are some thirty. None
    where this is in no greenlet, or where nobody's line awaits it.
    """
    parent = greenlet.getcurrent().parent
    frame = parent.gr_frame if parent is not None else None
    return None if frame is None else place_in(_outwards(frame))


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def place_in(frames: Iterable[FrameType]) -> Place | None:
    """Return the place of the user's own innermost line in frames, the innermost first."""
    installed: FrameType | None = None
    for frame in frames:
        origin = origin_of(frame.f_code.co_filename)
        if origin == "own":
            return line_of(frame)
        if origin == "installed" and installed is None:
            installed = frame
    return None if installed is None else line_of(installed)


def line_of(frame: FrameType) -> Place:
    """Return where a frame is."""
    return frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name


def short_path(filename: str) -> str:
    """Return a path as a person in the current folder would write it."""
    try:
        here = Path.cwd()
    except OSError:  # the folder is gone
        return filename
    path = Path(filename)
    return str(path.relative_to(here)) if path.is_relative_to(here) else filename


def written(place: Place) -> str:
    """Return a place as `file:line in function`."""
    filename, line, function = place
    where = f"{short_path(filename)}:{line}"
    return where if function == "<module>" else f"{where} in {function}"

"""
Turn the fast paths on and off: for an engine, a session factory, a class of sessions, a session.

What they are made of is imported when they are turned on: the names alone cost nothing.
"""

from __future__ import annotations

import logging
import os
import threading

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from ..inserts.enable import Target as Sessions

Target = Sessions | AsyncEngine | Engine

SWITCH = "ASYNC_LOADER_FAST_PATHS"
_log = logging.getLogger("async_loader")
_lock = threading.Lock()
_told: list[bool] = []  # whether the switch has been told of


def enable_fast_paths(target: Target, *, selectin: bool = True) -> None:
    """Spend less of the client's CPU on what these sessions read.

    `target` is an engine, an `async_sessionmaker`, a `sessionmaker` of either kind of session, a
    scoped session over one of them, a class of `AsyncSession` or `Session`, or one session. An
    engine means the sessions whose own `bind` it is: who finds engines otherwise (`binds`, a
    `get_bind` of its own) is named itself. Turned on twice it is on once, with the last settings.

    `selectin`: the statement of a `selectinload` is built once for each statement that has it, and
    with asyncpg and psycopg its keys go as one array (`= ANY`) where they are of a type that
    compares alike. Rows, objects, options and events are SQLAlchemy's; the text of the SQL is not.

    What cannot be done exactly is left to SQLAlchemy, and `async_loader.reads.explain` says what
    and why. Nothing of SQLAlchemy's is replaced before the first call. Of a SQLAlchemy that is
    otherwise than those that were read, a part stays off, with one warning. With
    `ASYNC_LOADER_FAST_PATHS=off` in the environment the call does nothing, and logs one line.

    Raises TypeError for any other target.
    """
    if is_switched_off():
        if not _told:
            _told.append(True)
            _log.warning("%s=off: fast paths stay off in this process", SWITCH)
        return

    from . import selectin as loader  # noqa: PLC0415  who imports the names may never turn it on
    from .supported import is_supported  # noqa: PLC0415  as above
    from .targets import Setting, turn_on  # noqa: PLC0415  as above

    with _lock:
        setting = Setting(selectin=selectin and is_supported("selectin"))
        turn_on(target, setting)
        if setting.selectin:
            loader.install()


def disable_fast_paths(target: Target | None = None) -> None:
    """Turn them off, for what they were turned on for, or without a target for everybody.

    When they are on for nobody, SQLAlchemy is exactly what it was.

    Raises TypeError for what `enable_fast_paths` does not take.
    """
    from . import selectin as loader  # noqa: PLC0415  who imports the names may never turn it on
    from .targets import any_on, turn_off, turn_off_all  # noqa: PLC0415  as above

    with _lock:
        if target is None:
            turn_off_all()
        else:
            turn_off(target)
        if not any_on():
            turn_off_all()
            loader.remove()


def is_available() -> bool:
    """Tell whether `enable_fast_paths` can do anything here."""
    from .supported import why_not  # noqa: PLC0415  as above

    return not is_switched_off() and why_not("selectin") is None


def is_switched_off() -> bool:
    """Tell whether the environment says that nothing is to be turned on."""
    return os.environ.get(SWITCH, "").strip().lower() in {"off", "0", "false", "no"}

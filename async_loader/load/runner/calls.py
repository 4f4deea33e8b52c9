"""How an operation is called: with the parameters it asks for, and nothing else made."""

from __future__ import annotations

import sys
from asyncio import current_task
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from sqlalchemy.orm import Session, sessionmaker

from ...database.session_factories import Sessions, opener_of
from ...failures.classification import may_be_retried
from ..effects import Effects, current_effects
from ..workload import Kind, Mix, Operation
from .try_checks import TryChecks, counted_when_kept, current_checks

SyncSessions = sessionmaker[Session]
Check = Callable[[str, bool], None]
Call = Callable[[int], Coroutine[Any, Any, Any]]


T = TypeVar("T")


def import_what_is_called() -> None:
    """Import what the insert path imports at its first call, which may be an operation's."""
    if f"{__package__.split('.')[0]}.inserts" in sys.modules:
        from ...inserts import preload  # noqa: PLC0415  it is there

        preload()


def sessions_by_kind(sessions: T, read_sessions: T) -> dict[Kind | None, T]:
    """Return which sessions an operation gets; one of no declared kind may write."""
    return {"write": sessions, "read": read_sessions, None: sessions}


def call_of(
    operation: Operation,
    mix: Mix,
    sessions: Mapping[Kind | None, Sessions | None],
    shared: Any,
    check: Check,
) -> Call:
    """Return the coroutine function that performs an operation, by its number in the stream."""
    function = operation.function
    context = mix.context
    check = counted_when_kept(check)
    wants_op = "op" in operation.wants
    if "session" not in operation.wants:
        if not wants_op:
            return lambda _index: function()
        return lambda index: function(op=context(index, shared, check))
    factory = sessions[operation.kind]
    assert factory is not None
    opened = opener_of(factory)

    async def with_session(index: int) -> Any:
        async with opened() as session:
            if wants_op:
                return await function(session=session, op=context(index, shared, check))
            return await function(session=session)

    return with_session


def retrying(call: Call, max_tries: int, on_retry: Callable[[bool], None]) -> Call:
    """
    Return the call, tried again at once while the server gives it up in favour of others.

    What a try that is given up has checked does not count.

    Each try is the whole operation, with a session and a context of its own. `on_retry` is told
    of each after the first, and whether it is the second. A cancelled operation is not tried
    again, in whatever way it ends, and neither is one that may have committed something.
    """

    async def call_again(index: int) -> Any:
        task = current_task()
        for tried in range(1, max_tries):
            checks = _of_this_try()
            try:
                value = await call(index)
            except Exception as error:
                cancelled = task is not None and task.cancelling()
                if cancelled or not may_be_retried(error) or not _to_begin_anew():
                    checks.keep()
                    raise
                on_retry(tried == 1)
            except BaseException:
                checks.keep()
                raise
            else:
                checks.keep()
                return value
        current_checks.set(None)
        return await call(index)

    return call_again if max_tries > 1 else call


def _of_this_try() -> TryChecks:
    """Return where the checks of a try are held that begins now."""
    checks = TryChecks()
    current_checks.set(checks)
    return checks


def _to_begin_anew() -> bool:
    """Return whether a try has left nothing behind; then the next one's effects are its own."""
    effects = current_effects.get()
    if effects is not None:
        if effects.may_have_committed:
            effects.committed = True
            return False
        effects.end(rolls_back=True)  # what it has left counts no more
        current_effects.set(Effects())
    return True


def sync_retrying(
    call: Callable[[int], Any], max_tries: int, on_retry: Callable[[bool], None]
) -> Callable[[int], Any]:
    """Return a sync call, tried again as `retrying` does."""

    def call_again(index: int) -> Any:
        for tried in range(1, max_tries):
            checks = _of_this_try()
            try:
                value = call(index)
            except Exception as error:
                if not may_be_retried(error) or not _to_begin_anew():
                    checks.keep()
                    raise
                on_retry(tried == 1)
            else:
                checks.keep()
                return value
        current_checks.set(None)
        return call(index)

    return call_again if max_tries > 1 else call


def sync_call_of(
    operation: Operation,
    mix: Mix,
    sessions: Mapping[Kind | None, SyncSessions | None],
    shared: Any,
    check: Check,
) -> Callable[[int], Any]:
    """Return the plain function that performs an operation's sync twin, by its number."""
    check = counted_when_kept(check)
    twin = operation.twin
    assert twin is not None
    function, wants_op = twin.function, "op" in twin.wants
    factory = sessions[operation.kind] if "session" in twin.wants else None

    def call(index: int) -> Any:
        arguments = {"op": mix.context(index, shared, check)} if wants_op else {}
        if factory is None:
            return function(**arguments)
        with factory() as session:
            return function(session=session, **arguments)

    return call

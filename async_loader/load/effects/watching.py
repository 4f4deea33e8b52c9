"""Having the dialects of all engines tell of what they do, for the time of a run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from importlib import import_module
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.orm import Session
from sqlalchemy.pool import Pool

from ...database.sqlalchemy_private import dialect_of, is_unflushed, pool_of_proxy, to_be_flushed
from .behind import behind_its_end
from .effects import Effects, current_effects, is_idle, strays
from .statements import Sort, first_word, sort_of
from .undetermined import has_written


@contextmanager
def watched(*, raw_drivers: bool = False) -> Iterator[None]:
    """
    Have `current_effects` told of what all engines of the process do, until the block ends.

    `raw_drivers`: of asyncpg, psycopg and aiosqlite used directly, too. May be nested.
    """
    watch = _Watch()
    event.listen(Pool, "checkout", watch.seen)
    undo = [_replaced(Session, "expunge_all", _looking_first)]  # of each close and reset, too
    undo += [_replaced(Session, "__init__", _noting)]
    # Of those that were made before the operation; `add_all` adds one by one.
    undo += [_replaced(Session, name, _noting_use) for name in ("add", "delete", "merge")]
    undo += _raw_drivers() if raw_drivers else []
    try:
        yield
    finally:
        for restore in reversed(undo):
            restore()
        event.remove(Pool, "checkout", watch.seen)
        watch.leave()


class _Watch:
    """The dialects that are told of, found where a connection is taken from a pool."""

    def __init__(self) -> None:
        self._wrapped: dict[int, tuple[Dialect, dict[str, Any]]] = {}

    def seen(self, _connection: object, _record: object, fairy: Any) -> None:
        """Follow the dialect of a connection that is taken."""
        dialect = dialect_of(pool_of_proxy(fairy))
        if id(dialect) in self._wrapped or "_told_of_effects" in vars(dialect):
            return
        ours: dict[str, Any] = {"_told_of_effects": True}
        for name, wrap in _WRAPPERS.items():
            ours[name] = wrap(getattr(dialect, name))
        if dialect.driver not in _RAW:
            ours["get_driver_connection"] = _raw_use(dialect.get_driver_connection)
        self._wrapped[id(dialect)] = (dialect, ours)
        for name, value in ours.items():
            setattr(dialect, name, value)

    def leave(self) -> None:
        """Leave the dialects as they were; who has wrapped ours meanwhile takes it along."""
        for dialect, ours in self._wrapped.values():
            for name, value in ours.items():
                if vars(dialect).get(name) is value:
                    delattr(dialect, name)


def _effects() -> Effects | None:
    effects = current_effects.get()
    return None if effects is None or effects.over else effects


def _execute(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def execute(cursor: Any, statement: str, *args: Any, **kwargs: Any) -> Any:
        context = kwargs.get("context", args[-1] if args else None)
        root = getattr(context, "root_connection", None)
        if root is None:  # the dialect's own
            return method(cursor, statement, *args, **kwargs)
        sort = sort_of(statement)
        running = _effects()
        effects = running or behind_its_end(begin=sort not in ("read", "rollback"))
        try:
            result = method(cursor, statement, *args, **kwargs)
        except BaseException as error:
            if effects is not None:
                effects.failed(root.connection.dbapi_connection, sort, error, statement)
            raise
        # Most statements read, and change nothing.
        if effects is not None and (sort != "read" or effects.rolled_back):
            effects.executed(root.connection.dbapi_connection, sort, cursor, statement)
        if running is None and _is_kept_at_once(root, sort, statement):
            strays.count += 1
        return result

    return execute


def _is_kept_at_once(root: Any, sort: Sort, statement: str) -> bool:
    """Tell whether a statement has committed something, if only itself."""
    writes = sort == "write" or first_word(statement) in ("call", "do")
    return sort == "commit" or (writes and is_idle(root.connection.dbapi_connection))


def _commit(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def commit(connection: Any, *args: Any, **kwargs: Any) -> Any:
        running = _effects()
        effects = running or behind_its_end(begin=False)
        raised: BaseException | None = None
        try:
            return method(connection, *args, **kwargs)
        except BaseException as error:
            raised = error
            raise
        finally:
            is_kept = raised is None or not _given_up(raised)
            if running is None and is_kept:
                strays.count += 1
            if effects is not None:
                effects.ended(_dbapi(connection), committed=is_kept)

    return commit


def _rollback(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def rollback(connection: Any, *args: Any, **kwargs: Any) -> Any:
        effects = _effects() or behind_its_end(begin=False)
        if effects is not None:
            dbapi = _dbapi(connection)
            transaction = effects.pending.get(id(dbapi))
            if transaction is not None and transaction.is_undetermined:
                dialect = getattr(method, "__self__", None)
                transaction.wrote = has_written(dialect, dbapi, transaction.undetermined)
            effects.ended(dbapi, committed=False)
        return method(connection, *args, **kwargs)

    return rollback


_WRAPPERS: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "do_execute": _execute,
    "do_execute_no_params": _execute,
    "do_executemany": _execute,
    "do_commit": _commit,
    "do_commit_twophase": _commit,
    "do_rollback": _rollback,
    "do_rollback_twophase": _rollback,
}


def _dbapi(connection: Any) -> Any:
    """Return the driver's connection of a pool's proxy, or of a `Connection` (two-phase)."""
    proxy = connection.connection if isinstance(connection, Connection) else connection
    return getattr(proxy, "dbapi_connection", proxy)


def _given_up(error: BaseException) -> bool:
    """Return whether a commit that raised this has surely not happened: the server says so."""
    for link in (error, getattr(error, "orig", None), error.__cause__):
        state = getattr(link, "sqlstate", None) or getattr(link, "pgcode", None)
        if isinstance(state, str):
            return not state.startswith(("08", "57"))
    return False


def _looking_first(expunge_all: Callable[[Session], None]) -> Callable[[Session], None]:
    @wraps(expunge_all)
    def look_and_expunge(self: Session) -> None:
        effects = _effects()
        if effects is None:
            if is_unflushed(to_be_flushed(self)) and (late := behind_its_end(begin=True)):
                late.unsaved = True
            expunge_all(self)
            return
        effects.unsaved = effects.unsaved or is_unflushed(to_be_flushed(self))
        expunge_all(self)
        effects.sessions.append(to_be_flushed(self))  # it may be used again

    return look_and_expunge


def _noting(make: Callable[..., None]) -> Callable[..., None]:
    @wraps(make)
    def make_and_note(self: Session, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        effects = _effects()
        if effects is not None:
            effects.sessions.append(to_be_flushed(self))

    return make_and_note


def _noting_use(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def note_and_use(self: Session, *args: Any, **kwargs: Any) -> Any:
        effects = _effects()
        if effects is not None:
            kept, known = to_be_flushed(self), effects.sessions
            if not any(one[2] is kept[2] for one in known):
                known.append(kept)
        return method(self, *args, **kwargs)

    return note_and_use


# Those whose use beside an engine is seen: what a user calls on them.
_RAW = {
    "asyncpg": {
        "Connection": "execute executemany fetch fetchrow fetchval fetchmany prepare cursor "
        "copy_to_table copy_records_to_table"
    },
    "asyncpg.prepared_stmt": {
        "PreparedStatement": "fetch fetchrow fetchval fetchmany executemany cursor"
    },
    "psycopg": {
        "AsyncConnection": "execute commit",
        "AsyncCursor": "execute executemany copy",
        "Connection": "execute commit",
        "Cursor": "execute executemany copy",
    },
    "aiosqlite": {"Connection": "execute executemany executescript commit"},
}
_BETWEEN = frozenset({"sqlalchemy", "asyncpg", "psycopg", "psycopg_pool", "aiosqlite"}) | {
    __name__.partition(".")[0]
}


def _raw_drivers() -> list[Callable[[], None]]:
    undo = []
    for name, classes in _RAW.items():
        module = None
        with suppress(ImportError):  # of a driver that is used first within an operation, too
            module = import_module(name)
        for class_name, methods in classes.items():
            owner = getattr(module, class_name, None)
            undo += [_replaced(owner, n, _raw_use) for n in methods.split() if hasattr(owner, n)]
    return undo


def _raw_use(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def use(*args: Any, **kwargs: Any) -> Any:
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if caller.partition(".")[0] not in _BETWEEN or caller in ("asyncpg.pool", _POOLED):
            effects = _effects()
            if effects is None:
                strays.count += 1
            else:
                effects.raw = True
        return method(*args, **kwargs)

    return use


# Where a pool's proxy hands on what a user asked of a connection.
_POOLED = "sqlalchemy.pool.base"


def _replaced(
    owner: Any, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Callable[[], None]:
    """Replace a class's method; return what puts it back."""
    own = vars(owner).get(name)
    ours = wrap(getattr(owner, name))
    setattr(owner, name, ours)

    def restore() -> None:
        if vars(owner).get(name) is ours:
            if own is None:
                delattr(owner, name)
            else:
                setattr(owner, name, own)

    return restore

"""Turn batching on: for a session factory, a class of sessions, or one session."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from ..errors import ConfigurationError
from .adding import add_all, adds_like_stock
from .changes.deleting import delete_all_of, deletes_like_stock
from .sizes import STATEMENT_BYTES
from .unit_of_work import Setting, before_flush

Target = (
    async_sessionmaker[Any]
    | sessionmaker[Any]
    | async_scoped_session[Any]
    | scoped_session[Any]
    | type[AsyncSession]
    | type[Session]
    | AsyncSession
    | Session
)


def enable_batch_inserting(
    target: Target, *, reserve: int = 0, statement_bytes: int = STATEMENT_BYTES
) -> None:
    """Write new objects of these sessions in few statements and with less CPU.

    `target` is an `async_sessionmaker`, a `sessionmaker` of either kind of session, a scoped
    session over one of them, a class of `AsyncSession` or `Session`, or one session. Turned on
    twice it is on once, with the last settings.

    What SQLAlchemy alone does right is left to it, and `explain` says so. A table is asked for
    its triggers, rules, policies and defaults once on each connection; DDL of later on is seen
    by connections that are opened after it. A statement carries at most `statement_bytes` bytes
    of text and binary values (16 MiB), or one row.

    Some flushes have to ask a sequence for keys before they insert: trees, objects that differ
    in the columns they set, a `Sequence` of one's own. With `reserve=N` a block of N keys is
    kept per engine and sequence, and such flushes of up to N objects take theirs from it without
    a round trip. A block is drawn on a short-lived connection outside the pool, in a transaction
    that is durable before the first key is used, and thrown away when any connection of the pool
    is made, closed or lost; so keys have gaps, and those of several flushes are in no order. Not
    for engines without a pool of lasting connections, or whose tables are dropped, emptied with
    RESTART IDENTITY, or change places in the `search_path`, while it lives.

    Raises TypeError for any other target, and ConfigurationError for settings out of range.
    """
    _enable(target, _checked(Setting(True, False, False, False, reserve, statement_bytes)))


def enable_batching(
    target: Target,
    *,
    inserts: bool = True,
    updates: bool = True,
    deletes: bool = True,
    strict_deletes: bool = False,
    reserve: int = 0,
    statement_bytes: int = STATEMENT_BYTES,
) -> None:
    """Write new, changed and deleted objects of these sessions in few trips to the server.

    `target`, `reserve` and `statement_bytes` are those of `enable_batch_inserting`, which is this
    with `inserts` alone. Turned on twice it is on once, with the last settings.

    Updates that SQLAlchemy sends row by row (of rows with a version, with values that are read
    back or are SQL) go in one trip, in its order, through the driver's pipeline. Where
    neighbours set different columns, each set of columns goes in one statement, if no trigger,
    rule, policy, view or unique index shows in which order rows are updated; the locks of all
    rows are taken in the order of their keys first. Versioned rows are deleted in one trip. What
    SQLAlchemy alone does right is left to it, and `explain` says so.

    How many rows were matched is checked where SQLAlchemy checks it on that driver. On asyncpg it
    counts deletes of several versioned rows and does not look: `strict_deletes` raises
    `StaleDataError` there, too.

    Raises TypeError for any other target, and ConfigurationError for settings out of range.
    """
    setting = Setting(inserts, updates, deletes, strict_deletes, reserve, statement_bytes)
    _enable(target, _checked(setting))


def _checked(setting: Setting) -> Setting:
    if setting.reserve < 0:
        raise ConfigurationError(f"reserve must be 0 or more, not {setting.reserve}")
    if setting.statement_bytes < 1:
        raise ConfigurationError(
            f"statement_bytes must be 1 or more, not {setting.statement_bytes}"
        )
    return setting


def _enable(target: Any, setting: Setting) -> None:
    if isinstance(target, async_scoped_session | scoped_session):
        target = target.session_factory
    if isinstance(target, async_sessionmaker):
        _enable_factory(target, target.class_, setting)
    elif isinstance(target, AsyncSession):
        _listen(target.sync_session, setting)
    elif isinstance(target, sessionmaker) and issubclass(target.class_, AsyncSession):
        _enable_factory(target, target.class_, setting)
    elif isinstance(target, sessionmaker):
        _batch(target.class_, setting)  # a subclass that every sessionmaker makes for itself
    elif isinstance(target, Session):
        _listen(target, setting)
    else:
        _enable_class(target, setting)


def _enable_class(target: Any, setting: Setting) -> None:
    if isinstance(target, type) and issubclass(target, AsyncSession):
        target.sync_session_class = _batching_class(target.sync_session_class, setting)
    elif isinstance(target, type) and issubclass(target, Session):
        _listen(target, setting)
    else:
        raise TypeError(
            f"batching takes a session, a class of sessions or a session factory, not {target!r}"
        )


def _enable_factory(factory: Any, cls: Any, setting: Setting) -> None:
    """Give a factory of async sessions a class of sync sessions: it takes no listeners itself."""
    current = factory.kw.get("sync_session_class") or cls.sync_session_class
    factory.configure(sync_session_class=_batching_class(current, setting))


def _batching_class(cls: type[Session], setting: Setting) -> type[Session]:
    if cls in _turned_on:
        _listen(cls, setting)
        return cls
    subclass = type(cls.__name__, (cls,), {"__module__": cls.__module__, "__doc__": cls.__doc__})
    _batch(subclass, setting)
    return subclass


def _batch(cls: Any, setting: Setting) -> None:
    """Turn it on for a class that is ours to change: others keep their methods."""
    if adds_like_stock(cls):
        cls.add_all = add_all
    if setting.deletes and deletes_like_stock(cls):
        cls.delete_all = delete_all_of
    _listen(cls, setting)


# Not `event.contains`: it goes by id(), which a new session may share with one long gone.
_turned_on: WeakKeyDictionary[Any, Setting] = WeakKeyDictionary()


def _listen(target: Any, setting: Setting) -> None:
    if target in _turned_on:
        known = _turned_on[target]
        for field in fields(setting):
            setattr(known, field.name, getattr(setting, field.name))
        return
    kept = _turned_on[target] = replace(setting)

    def listener(session: Session, uow: Any, _objects: Any) -> None:
        before_flush(session, uow, kept)

    event.listen(target, "before_flush", listener)


def setting_of(session: AsyncSession | Session) -> Setting | None:
    """Return what of a session's flushes is batched, or None where nothing is."""
    sync_session = session.sync_session if isinstance(session, AsyncSession) else session
    found = [sync_session, *type(sync_session).__mro__]
    return next((_turned_on[one] for one in found if one in _turned_on), None)

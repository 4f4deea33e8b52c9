"""Turn batching on: for a session factory, a class of sessions, or one session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from async_loader.errors import ConfigurationError
from async_loader.inserts.adding import add_all, adds_like_stock
from async_loader.inserts.unit_of_work import before_flush

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


def enable_batch_inserting(target: Target, *, reserve: int = 0) -> None:
    """Write new objects of these sessions in few statements and with less CPU.

    `target` is an `async_sessionmaker`, a `sessionmaker`, a scoped session, a class of
    `AsyncSession` or `Session`, or one session. Turned on twice it is on once, with the last
    `reserve`.

    Some flushes have to ask a sequence for keys before they insert: trees, objects that differ
    in the columns they set, a `Sequence` of one's own. With `reserve=N` a block of N keys is
    kept per engine and sequence, and such flushes of up to N objects take theirs from it without
    a round trip. A block is drawn on a short-lived connection outside the pool, in a transaction
    that is durable before the first key is used, and thrown away when any connection of the pool
    is made, closed or lost; so keys have gaps, and those of several flushes are in no order. Not
    for engines without a pool of lasting connections, or whose tables are dropped, emptied with
    RESTART IDENTITY, or change places in the `search_path`, while it lives.

    Raises TypeError for any other target, and ConfigurationError for a negative `reserve`.
    """
    if reserve < 0:
        raise ConfigurationError(f"reserve must be 0 or more, not {reserve}")
    if isinstance(target, async_scoped_session | scoped_session):
        target = target.session_factory
    if isinstance(target, async_sessionmaker):
        _enable_async_factory(target, reserve)
    elif isinstance(target, AsyncSession):
        _listen(target.sync_session, reserve)
    elif isinstance(target, sessionmaker):
        _batch(target.class_, reserve)  # a subclass that every sessionmaker makes for itself
    elif isinstance(target, Session):
        _listen(target, reserve)
    else:
        _enable_class(target, reserve)


def _enable_class(target: Any, reserve: int) -> None:
    if isinstance(target, type) and issubclass(target, AsyncSession):
        target.sync_session_class = _batching_class(target.sync_session_class, reserve)
    elif isinstance(target, type) and issubclass(target, Session):
        _listen(target, reserve)
    else:
        raise TypeError(
            "enable_batch_inserting takes a session, a class of sessions or a session "
            f"factory, not {target!r}"
        )


def _enable_async_factory(factory: async_sessionmaker[Any], reserve: int) -> None:
    """Give it a session subclass: it takes no listeners itself."""
    configured = factory.kw.get("sync_session_class")
    current = configured or factory.class_.sync_session_class
    factory.configure(sync_session_class=_batching_class(current, reserve))


def _batching_class(cls: type[Session], reserve: int) -> type[Session]:
    if cls in _turned_on:
        _listen(cls, reserve)
        return cls
    subclass = type(cls.__name__, (cls,), {"__module__": cls.__module__, "__doc__": cls.__doc__})
    _batch(subclass, reserve)
    return subclass


def _batch(cls: Any, reserve: int) -> None:
    """Turn it on for a class that is ours to change: others keep their methods."""
    if adds_like_stock(cls):
        cls.add_all = add_all
    _listen(cls, reserve)


@dataclass(slots=True)
class _Setting:
    reserve: int


# Not `event.contains`: it goes by id(), which a new session may share with one long gone.
_turned_on: WeakKeyDictionary[Any, _Setting] = WeakKeyDictionary()


def _listen(target: Any, reserve: int) -> None:
    if target in _turned_on:
        _turned_on[target].reserve = reserve
        return
    setting = _turned_on[target] = _Setting(reserve)

    def listener(session: Session, uow: Any, _objects: Any) -> None:
        before_flush(session, uow, setting.reserve)

    event.listen(target, "before_flush", listener)

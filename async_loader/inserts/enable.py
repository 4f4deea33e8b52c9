"""Turn batching on: for a session factory, a class of sessions, or one session."""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

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


def enable_batch_inserting(target: Target) -> None:
    """Write new objects of these sessions in few statements and with less CPU.

    `target` is an `async_sessionmaker`, a `sessionmaker`, a scoped session, a class of
    `AsyncSession` or `Session`, or one session. Turned on twice it is on once. Raises TypeError
    for anything else.
    """
    if isinstance(target, async_scoped_session | scoped_session):
        target = target.session_factory
    if isinstance(target, async_sessionmaker):
        _enable_async_factory(target)
    elif isinstance(target, AsyncSession):
        _listen(target.sync_session)
    elif isinstance(target, sessionmaker):
        _listen(target.class_)
    elif isinstance(target, Session):
        _listen(target)
    else:
        _enable_class(target)


def _enable_class(target: Any) -> None:
    if isinstance(target, type) and issubclass(target, AsyncSession):
        target.sync_session_class = _batching_class(target.sync_session_class)
    elif isinstance(target, type) and issubclass(target, Session):
        _listen(target)
    else:
        raise TypeError(
            "enable_batch_inserting takes a session, a class of sessions or a session "
            f"factory, not {target!r}"
        )


def _enable_async_factory(factory: async_sessionmaker[Any]) -> None:
    """Give it a session subclass: it takes no listeners itself."""
    configured = factory.kw.get("sync_session_class")
    current = configured or factory.class_.sync_session_class
    factory.configure(sync_session_class=_batching_class(current))


def _batching_class(cls: type[Session]) -> type[Session]:
    if cls in _listening:
        return cls
    subclass = type(cls.__name__, (cls,), {"__module__": cls.__module__, "__doc__": cls.__doc__})
    _listen(subclass)
    return subclass


# Not `event.contains`: it goes by id(), which a new session may share with one long gone.
_listening: WeakSet[Any] = WeakSet()


def _listen(target: Any) -> None:
    if target not in _listening:
        event.listen(target, "before_flush", before_flush)
        _listening.add(target)

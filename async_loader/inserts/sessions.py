"""Which sessions batch: what a factory, a class or a session is given to listen to its flushes."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from .adding import add_all, adds_like_stock
from .changes.deleting import delete_all_of, deletes_like_stock
from .changes.merging import merge_all_of, merges_like_stock
from .unit_of_work import Setting, before_flush


def enable(target: Any, setting: Setting) -> None:
    """Turn batching on for what `enable_batching` takes; raises TypeError for anything else."""
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
    if setting.updates and merges_like_stock(cls):
        cls.merge_all = merge_all_of
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

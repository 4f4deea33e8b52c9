"""
For whom the fast paths are on: a session, a factory or class of sessions, an engine.

They are looked up here, and given nothing: but for an `async_sessionmaker`, whose sessions have the
setting in their `info`. (A `sessionmaker` has a class of its own.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import Engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_scoped_session, async_session
from sqlalchemy.ext.asyncio import async_sessionmaker as async_factory
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

from ..inserts.array_types import tell_pooled

_KEY = "async_loader.fast_paths"


@dataclass(slots=True)
class Setting:
    """What is on, until it is revoked: sessions that a factory has made keep theirs."""

    selectin: bool
    is_revoked: bool = False


_factories: WeakKeyDictionary[async_factory[Any], Setting] = WeakKeyDictionary()

_sessions: WeakKeyDictionary[Session, Setting] = WeakKeyDictionary()
# Of sessions and of async ones; the second have sessions of a class that others may have too.
_classes: WeakKeyDictionary[type[Any], Setting] = WeakKeyDictionary()
_async_classes: WeakKeyDictionary[type[AsyncSession], Setting] = WeakKeyDictionary()
# An engine and what `execution_options` makes of it have one.
_dialects: WeakKeyDictionary[Any, Setting] = WeakKeyDictionary()
# Engines whose connections are told of arrays.
_telling: WeakSet[Engine] = WeakSet()


def turn_on(target: Any, setting: Setting) -> None:
    """Note the setting; raises TypeError for what is neither sessions nor an engine."""
    settings, key = _place(target)
    _tell_of_arrays(target)
    if settings is _factories:
        key.configure(info={**key.kw.get("info", {}), _KEY: setting})
    settings[key] = setting


def turn_off(target: Any) -> None:
    """Forget the setting of one target; raises TypeError as `turn_on` does."""
    settings, key = _place(target)
    setting = settings.pop(key, None)
    if setting is not None and settings is _factories:
        setting.is_revoked = True
        info = {name: value for name, value in key.kw["info"].items() if name != _KEY}
        key.kw.pop("info")
        if info:
            key.configure(info=info)


def turn_off_all() -> None:
    """Forget all settings, and listen to no engine."""
    for factory in [*_factories]:
        turn_off(factory)
    for settings in (_sessions, _classes, _async_classes, _dialects):
        settings.clear()
    for engine in [*_telling]:
        if event.contains(engine, "connect", _connected):
            event.remove(engine, "connect", _connected)
    _telling.clear()


def any_on() -> bool:
    """Tell whether anything is on for anybody who is still there."""
    return bool(_factories or _sessions or _classes or _async_classes or _dialects)


def setting_of(session: Session) -> Setting | None:
    """Return what is on for a session, its factory, its class or its engine, in that order."""
    if _sessions and session in _sessions:
        return _sessions[session]
    if _factories and (setting := session.info.get(_KEY)) is not None and not setting.is_revoked:
        return setting  # type: ignore[no-any-return]  # we have put it there
    if _async_classes and (proxy := async_session(session)) is not None:
        for cls in type(proxy).__mro__:
            if cls in _async_classes:
                return _async_classes[cls]
    if _classes:
        for cls in type(session).__mro__:
            if cls in _classes:
                return _classes[cls]
    if _dialects and session.bind is not None:
        return _dialects.get(session.bind.dialect)
    return None


def _place(target: Any) -> tuple[Any, Any]:
    """Return where the setting of a target is, and under which key."""
    target = _plain(target)
    if isinstance(target, async_factory):
        return _factories, target
    if isinstance(target, sessionmaker):
        target = target.class_
    if isinstance(target, Session):
        return _sessions, target
    if isinstance(target, Engine):
        return _dialects, target.dialect
    if isinstance(target, type) and issubclass(target, AsyncSession):
        return _async_classes, target
    if isinstance(target, type) and issubclass(target, Session):
        return _classes, target
    raise TypeError(
        "fast paths are for an engine, a session, a class of sessions or a session factory, "
        f"not for {target!r}"
    )


def _plain(target: Any) -> Any:
    """Return the factory, session or engine behind what an application holds."""
    if isinstance(target, async_scoped_session | scoped_session):
        target = target.session_factory
    if isinstance(target, AsyncSession):
        return target.sync_session
    return target.sync_engine if isinstance(target, AsyncEngine) else target


def _tell_of_arrays(target: Any) -> None:
    """Have new connections of asyncpg know arrays of keys: it would ask for them on each."""
    target = _plain(target)
    if isinstance(target, async_factory | sessionmaker):
        target = target.kw.get("bind")
    elif isinstance(target, Session):
        target = target.bind
    engine = _plain(target)
    if isinstance(engine, Engine) and engine.dialect.driver == "asyncpg" and not _tells(engine):
        event.listen(engine, "connect", _connected)
        _telling.add(engine)


def _tells(engine: Engine) -> bool:
    return any(one.pool is engine.pool for one in _telling)


def _connected(_driver: Any, entry: ConnectionPoolEntry) -> None:
    if any_on():
        tell_pooled(entry)

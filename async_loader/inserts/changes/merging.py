"""
Merge many objects into a session, whose rows are looked for together.

`Session.merge` asks for each object by its key, and for each collection of it that the session
does not know: a thousand objects take a thousand SELECTs, found or not. Here their rows are loaded
first, a statement a class and level of the graph; what then merges is SQLAlchemy's own `merge`,
which finds them in the session, and is told of the keys that have no row.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from typing import Any, NamedTuple, TypeVar, cast
from uuid import UUID

from sqlalchemy import bindparam, inspect, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import (
    LoaderCallableStatus,
    Mapper,
    RelationshipDirection,
    RelationshipProperty,
    Session,
    selectinload,
)
from sqlalchemy.orm.collections import collection_adapter
from sqlalchemy.orm.interfaces import ORMOption

from .._sqlalchemy import autoflush

T = TypeVar("T")
Key = tuple[Any, ...]
Absent = set[tuple[type, Key]]

_FEWEST = 3
# A statement has at most 32,767 parameters.
_MOST_PARAMETERS = 30_000
# What only equals itself, in the database as here; texts where they are not `_folded` alike.
_EXACT = (int, str, UUID, bytes, date)


class _Wanted(NamedTuple):
    """The rows of one class to load: their keys, and the relationships to load with them."""

    keys: dict[Key, None]
    loads: dict[str, Any]


async def merge_all(
    session: AsyncSession, objects: Iterable[T], *, options: Sequence[ORMOption] | None = None
) -> list[T]:
    """Merge objects as `session.merge` of each does, and load what they are merged into at once.

    Returns the merged objects in the order of the given ones. As with `session.merge_all` of
    SQLAlchemy 2.1 the session flushes once, before the first. `options` are those of `merge`.
    In `enable_batching` sessions `session.merge_all` does the same.
    """
    return await session.run_sync(merge_all_of, objects, options=options)


def merge_all_of(
    session: Session,
    instances: Iterable[T],
    *,
    load: bool = True,
    options: Sequence[ORMOption] | None = None,
) -> list[T]:
    """Merge objects into a sync session, once what they are merged into is loaded."""
    objects = list(instances)
    if load:
        autoflush(session)
    with session.no_autoflush:
        if not load or not _may_load(session, objects):
            return [session.merge(one, load=load, options=options) for one in objects]
        # The session holds what it has loaded weakly.
        kept, absent = _load(session, objects, options)
        with _knowing(session, absent):
            merged = [session.merge(one, options=options) for one in objects]
        del kept
    return merged


def merges_like_stock(cls: type[Session]) -> bool:
    """Tell whether a class of sessions has no `merge_all` of its own; 2.0 has none at all."""
    return getattr(cls, "merge_all", None) is getattr(Session, "merge_all", None)


def _may_load(session: Session, objects: Sequence[object]) -> bool:
    """Tell whether `merge` asks for rows by SQLAlchemy's own `get`, and each is a mapped object."""
    plain = getattr(session.get, "__func__", None) is Session.get
    states = [inspect(one, raiseerr=False) for one in objects]
    return plain and len(objects) >= _FEWEST and all(hasattr(one, "identity_key") for one in states)


def _load(
    session: Session, objects: Sequence[object], options: Sequence[ORMOption] | None
) -> tuple[list[object], Absent]:
    """Load what `merge` would, level by level; return it, and the keys that have no row."""
    kept: list[object] = []
    absent: Absent = set()
    seen: set[int] = set()
    level: list[Any] = list(objects)
    while level:
        below: list[Any] = []
        wanted: dict[Mapper[Any], _Wanted] = defaultdict(lambda: _Wanted({}, {}))
        for one in level:
            if id(one) not in seen:
                seen.add(id(one))
                below += _want(session, one, wanted)
        for mapper, (keys, loads) in wanted.items():
            ways = options or [selectinload(attribute) for attribute in loads.values()]
            found = list(_select(session, mapper, list(keys), ways))
            absent |= {(mapper.class_, key) for key in _absent(keys, found)}
            kept += found
        level, options = below, None  # which `merge` has for the given objects alone
    return kept, absent


def _want(session: Session, one: Any, wanted: dict[Mapper[Any], _Wanted]) -> list[object]:
    """Note what `merge` would load for an object; return those that it is merged with."""
    state: Any = inspect(one)
    mapper: Mapper[Any] = state.mapper
    key = state.identity_key or mapper.identity_key_from_instance(one)
    known = session.identity_map.get(key)
    if known is one:
        return []  # it is merged into itself, which is nothing
    related = [
        relationship
        for relationship in mapper.relationships
        if relationship.cascade.merge
        and relationship.key in state.dict
        and relationship.lazy not in ("dynamic", "write_only")
    ]
    target: Any = None if known is None else inspect(known)
    loads = [
        relationship.key
        for relationship in related
        if _loads(relationship) and (target is None or relationship.key in target.unloaded)
    ]
    if _may_have_a_row(key) and (target is None or target.expired or loads):
        keys, attributes = wanted[mapper]
        keys[key[1]] = None
        attributes.update((name, getattr(mapper.class_, name)) for name in loads)
    return [other for relationship in related for other in _others(state.dict[relationship.key])]


def _may_have_a_row(key: Any) -> bool:
    """Tell whether a row is looked for that one statement finds with others."""
    values: Key = key[1]
    whole = all(one is not None and one is not LoaderCallableStatus.NEVER_SET for one in values)
    return whole and key[2] is None  # else it is one shard's


def _loads(relationship: RelationshipProperty[Any]) -> bool:
    """Tell whether `merge` loads what is there of a relationship, row by row."""
    of_many = relationship.direction is not RelationshipDirection.MANYTOONE
    return relationship.lazy in ("select", True) and (of_many or relationship.active_history)


def _others(value: Any) -> Iterable[object]:
    if value is None:
        return ()
    adapter = collection_adapter(value) if hasattr(value, "_sa_adapter") else None
    return (value,) if adapter is None else list(adapter)


def _select(
    session: Session, mapper: Mapper[Any], keys: Sequence[Key], options: Sequence[ORMOption]
) -> Iterator[object]:
    columns = mapper.primary_key
    key: Any = columns[0] if len(columns) == 1 else tuple_(*columns)
    most = _MOST_PARAMETERS // len(columns)
    for start in range(0, len(keys), most):
        some = keys[start : start + most]
        values = [one[0] for one in some] if len(columns) == 1 else list(some)
        # Of the column's type, as `get` binds them: of its own accord IN goes by the first value.
        asked = bindparam("keys", values, type_=key.type, expanding=True)
        yield from session.scalars(select(mapper.class_).where(key.in_(asked)).options(*options))


def _absent(keys: Collection[Key], found: Iterable[object]) -> Iterable[Key]:
    """Return the keys that have no row, for sure; of the others `merge` asks the database."""
    there = {cast("Any", inspect(one)).identity_key[1] for one in found}
    absent = [key for key in keys if key not in there]
    # A row with a key that nobody asked for has one that the database takes for equal.
    alike = {tuple(map(_folded, key)) for key in keys}
    if len(there) + len(absent) > len(keys) or len(alike) < len(keys):
        return ()
    return absent if all(map(_is_exact, absent)) else ()


def _is_exact(key: Key) -> bool:
    return all(isinstance(value, _EXACT) for value in key)


def _folded(value: object) -> object:
    """Return what texts have in common that a collation may take for equal."""
    if not isinstance(value, str):
        return value
    whole = unicodedata.normalize("NFKD", value).casefold()
    return "".join(one for one in whole if one.isalnum())


@contextmanager
def _knowing(session: Session, absent: Absent) -> Iterator[None]:
    """Have `session.get`, by which `merge` asks for a row, know those that are not there."""
    get = session.get

    def known(entity: Any, ident: Any, **options: Any) -> Any:
        return None if (entity, ident) in absent else get(entity, ident, **options)

    cast("Any", session).get = known
    try:
        yield
    finally:
        del cast("Any", session).get

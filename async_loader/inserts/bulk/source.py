"""
Rows as they are given, read a chunk at a time and turned into tuples.

Rows are dicts, tuples, what reads like one of these (a query's Row by its names), or objects that
belong to no session. A chunk ends at so many rows or so many bytes, and no statement runs while
the next one is read: what makes the rows may use the same connection.
"""

from __future__ import annotations

from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import Any

from sqlalchemy import Row as SqlRow
from sqlalchemy import inspect
from sqlalchemy.orm import InstanceState
from sqlalchemy.types import (
    Boolean,
    Date,
    DateTime,
    Float,
    Integer,
    Interval,
    Numeric,
    String,
    Uuid,
)
from sqlalchemy.util.concurrency import await_only, in_greenlet

from ...errors import ConfigurationError
from .._sqlalchemy import expand_attributes
from .given import a_kind, with_article
from .target import Target

CHUNK = 50_000  # rows held at a time
CHUNK_BYTES = 16_000_000  # of text, bytes and documents
STEP = 1_000  # rows read together
HEAVY_STEP = 50  # rows read before they are weighed: so many may come larger than all before

_LIGHT = (Boolean, Date, DateTime, Float, Integer, Interval, Numeric, Uuid)
_LIGHT_STRING = 1_000  # characters


@dataclass(slots=True)
class Shaped:
    """Rows as tuples, in their order; `kinds` says by which of the `shapes` each names columns."""

    shapes: list[tuple[str, ...]]
    kinds: Sequence[int]
    rows: list[tuple[Any, ...]]


def chunks(target: Target, rows: Any, caller: str = "insert_rows") -> Iterator[list[Any]]:
    """Return the rows as lists that are not empty; raises ConfigurationError for what is none."""
    return _chunks(target, _Taking(rows, caller))


def _chunks(target: Target, take: _Taking) -> Iterator[list[Any]]:
    heavy = _heavy_keys(target)
    chunk: list[Any] = []
    size, step = 0, 1 if heavy else STEP
    while part := take(min(step, CHUNK - len(chunk))):
        chunk += part
        if heavy:
            weight = _weight(part, heavy)
            size += weight
            # The next part is expected to weigh a sixteenth of what is held.
            step = max(1, min(HEAVY_STEP, CHUNK_BYTES * len(part) // (16 * weight + 1)))
        if len(chunk) >= CHUNK or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


class _Taking:
    """Take the next so many rows of an iterable or an async iterable."""

    def __init__(self, rows: Any, caller: str) -> None:
        if isinstance(rows, Mapping | str | bytes) or not isinstance(
            rows, Iterable | AsyncIterable
        ):
            raise ConfigurationError(
                f"{caller} takes an iterable of rows, not {a_kind(rows)}: give a list of them"
            )
        self._rows: Iterator[Any] | None = None
        if isinstance(rows, Iterable):
            self._rows = iter(rows)
        elif in_greenlet():
            self._ahead = aiter(rows)
        else:
            raise ConfigurationError(
                f"{caller} takes an async iterable with an async session or connection only"
            )

    def __call__(self, count: int) -> list[Any]:
        if self._rows is not None:
            return list(islice(self._rows, count))
        taken: list[Any] = await_only(_take(self._ahead, count))
        return taken


async def _take(rows: AsyncIterator[Any], count: int) -> list[Any]:
    taken: list[Any] = []
    while len(taken) < count:
        try:
            taken.append(await anext(rows))
        except StopAsyncIteration:
            break
    return taken


def _heavy_keys(target: Target) -> dict[str, int]:
    """Return what may be large, and its place in a tuple with or without the server's key."""
    if not target.is_one_table:
        return dict.fromkeys(target.keys, 0)
    fields = list(target.by_key.values())
    places = [place for place, field in enumerate(fields) if field.column is target.generated]
    before = places[0] if places else len(fields)
    return {
        str(field.key): place if place < before else place - len(fields)
        for place, field in enumerate(fields)
        if not _is_light(field.column.type)
    }


def _is_light(type_: Any) -> bool:
    if isinstance(type_, String):
        return type_.length is not None and type_.length <= _LIGHT_STRING
    return isinstance(type_, _LIGHT)


def _weight(part: list[Any], heavy: Mapping[str, int]) -> int:
    kinds = set(map(type, part))
    if kinds == {dict}:
        return sum(_weight_of_all([row.get(key) for row in part]) for key in heavy)
    if kinds == {tuple} and len(set(map(len, part))) == 1:
        places = [place for place in heavy.values() if -len(part[0]) <= place < len(part[0])]
        return sum(_weight_of_all([row[place] for row in part]) for place in places)
    return sum(_weight_of(_values(row)) for row in part)


def _values(row: Any) -> list[Any]:
    if isinstance(row, Mapping):
        return list(row.values())
    if isinstance(row, Sequence) and not isinstance(row, str | bytes):
        return list(row)
    return list(getattr(row, "__dict__", {}).values())


def _weight_of_all(values: list[Any]) -> int:
    plain = set(map(type, values)) <= {str, bytes}
    return sum(map(len, values)) if plain else sum(map(_weight_of, values))


def _weight_of(value: Any) -> int:
    if isinstance(value, str | bytes | bytearray):
        return len(value)
    if isinstance(value, memoryview):
        return value.nbytes
    if isinstance(value, dict):
        return sum(map(_weight_of, value.values())) + 50 * len(value)
    if isinstance(value, list | tuple):
        return sum(map(_weight_of, value))
    return 8


def shaped(target: Target, chunk: list[Any], before: int = 0) -> Shaped:
    """Return rows as tuples; `before` rows went ahead of them."""
    kinds = set(map(type, chunk))
    if not kinds <= {dict, tuple} or len(kinds) > 1:
        chunk = [_plain(target, row, before + n) for n, row in enumerate(chunk, start=1)]
        kinds = set(map(type, chunk))
    if len(kinds) == 1 and len(set(map(len, chunk))) == 1:
        alike = _alike(target, chunk)
        if alike is not None:
            return alike
    return _one_by_one(target, chunk)


def dicts(target: Target, chunk: list[Any], before: int = 0) -> list[dict[str, Any]]:
    """Return rows as dicts by attribute, for the ORM to take apart."""
    given = shaped(target, chunk, before)
    return [
        dict(zip(given.shapes[kind], row, strict=True))
        for kind, row in zip(given.kinds, given.rows, strict=True)
    ]


def _alike(target: Target, chunk: list[Any]) -> Shaped | None:
    """Return rows of one shape, or None when a dict has other keys than the first."""
    first, kinds = chunk[0], [0] * len(chunk)
    if isinstance(first, tuple):
        return Shaped([target.names_of(len(first))], kinds, chunk)
    keys = tuple(first)
    if not target.keys.issuperset(keys):
        return None
    try:
        # As many keys as the first row, and all of its keys: the same keys.
        return Shaped([keys], kinds, _picked(chunk, keys))
    except KeyError:
        return None


def _picked(rows: list[Any], keys: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    if len(keys) > 1:
        return list(map(itemgetter(*keys), rows))
    return [tuple(row[key] for key in keys) for row in rows]


def _one_by_one(target: Target, chunk: list[Any]) -> Shaped:
    found = Shaped([], kinds := [], [])
    getters: dict[Any, tuple[int, Callable[[Any], tuple[Any, ...]]]] = {}
    for row in chunk:
        keys = len(row) if isinstance(row, tuple) else tuple(row)
        known = getters.get(keys)
        if known is None:
            if isinstance(keys, tuple) and not target.keys.issuperset(keys):
                row = _expanded(target, row)  # noqa: PLW2901  # the same row, in columns
                keys = tuple(row)
            known = getters[keys] = _getter(target, found.shapes, keys)
        kind, getter = known
        kinds.append(kind)
        found.rows.append(getter(row))
    return found


def _getter(
    target: Target, shapes: list[tuple[str, ...]], keys: Any
) -> tuple[int, Callable[[Any], tuple[Any, ...]]]:
    """Return the number of the shape that has these keys, and what picks its values."""
    if isinstance(keys, int):
        shapes.append(target.names_of(keys))
        return len(shapes) - 1, tuple
    same = [kind for kind, shape in enumerate(shapes) if set(shape) == set(keys)]
    kind = same[0] if same else len(shapes)
    if not same:
        shapes.append(keys)
    keys = shapes[kind]
    if len(keys) > 1:
        return kind, itemgetter(*keys)
    return kind, lambda row: tuple([row[key] for key in keys])


def _expanded(target: Target, row: dict[Any, Any]) -> dict[str, Any]:
    """Return a row with its composites and synonyms as columns; raises ConfigurationError."""
    row = dict(row)
    attributes = set(target.mapper.all_orm_descriptors.keys()) if target.mapper else set()
    if target.mapper is not None and attributes.issuperset(row):
        expand_attributes(target.mapper, row)
    unknown = sorted(str(key) for key in row.keys() - target.keys)
    if unknown:
        what = "column attribute" if target.mapper is not None else "column"
        raise ConfigurationError(f"{target.name} has no {what} {', '.join(unknown)}")
    return row


def _plain(target: Target, row: Any, number: int) -> dict[str, Any] | tuple[Any, ...]:
    if isinstance(row, SqlRow):
        return dict(row._mapping)  # a query's columns are in the order of the query
    if isinstance(row, Mapping):
        return dict(row)
    if isinstance(row, Sequence) and not isinstance(row, str | bytes | bytearray | memoryview):
        return tuple(row)
    if callable(getattr(row, "keys", None)):  # of a driver: an asyncpg.Record
        return dict(row)
    state = inspect(row, raiseerr=False)
    if isinstance(state, InstanceState):
        return _of_object(target, state, number)
    raise ConfigurationError(
        f"row {number} is {a_kind(row)}: insert_rows takes dicts, tuples, and objects of the class"
    )


def _of_object(target: Target, state: InstanceState[Any], number: int) -> dict[str, Any]:
    """Return the column attributes of an object that stays as it is, and no session's."""
    name = with_article(state.class_.__name__)
    if state.mapper is not target.mapper:
        raise ConfigurationError(f"row {number} is {name}, not {with_article(target.name)}")
    if not state.transient:
        raise ConfigurationError(
            f"row {number} is {name} that a session knows: the session's flush writes it"
        )
    mapper = state.mapper
    related = next((name for name, _ in mapper.relationships.items() if state.dict.get(name)), None)
    if related is not None:
        raise ConfigurationError(
            f"row {number} has {related}, another object: add it to a session, or give "
            "the foreign key"
        )
    return {key: value for key, value in state.dict.items() if key in target.keys}

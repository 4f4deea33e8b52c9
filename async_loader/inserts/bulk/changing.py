"""One UPDATE or DELETE of staged rows, found by a key."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Row as SqlRow
from sqlalchemy import Select, and_, delete, func, literal, select, type_coerce
from sqlalchemy import update as update_of
from sqlalchemy.sql import ColumnElement
from sqlalchemy.types import NullType

from ...errors import ConfigurationError
from .._sqlalchemy import counts_versions
from .calling import Call
from .catalogue import ask_key
from .counts import Deleted, Updated
from .given import Progress
from .records import filled
from .source import Shaped, chunks, shaped
from .staging import Kind, Stage, check_duplicates, differ, staged
from .target import Field, fields_of, maker_of


def update(
    rows: Any, progress: Progress | None, call: Call, *, key: Any, duplicates: str
) -> Updated:
    """Change the rows, all or none; see `update_rows`."""
    call.require_one_table()
    check_duplicates(duplicates)
    changing = _Changing(call, key)
    with staged(call, changing.fields) as stage:
        for chunk in chunks(call.target, rows, call.name):
            changing.put(stage, shaped(call.target, chunk, stage.count))
            if progress is not None:
                progress(stage.count)
        stage.settle(changing.key, duplicates)
        return changing.perform(stage)


def delete_by_key(keys: Any, progress: Progress | None, call: Call, *, key: Any) -> Deleted:
    """Delete the rows of the keys, all or none; see `delete_rows`."""
    call.require_one_table()
    fields = _key(call, [_as_given(field) for field in call.target.fields], key)
    given = _as_rows(call, [str(field.key) for field in fields], keys)
    with staged(call, fields) as stage:
        for chunk in chunks(call.target, given, call.name):
            rows = shaped(call.target, chunk, stage.count)
            _check_key(call, fields, rows)
            values, _ = filled(fields, rows, bool, call.dialect)
            stage.add(fields, values, [()], [0] * len(chunk))
            if progress is not None:
                progress(stage.count)
        return _deleted(call, stage, fields)


def _as_given(field: Field, default: Callable[[], Any] | None = None) -> Field:
    """Return a field whose None is NULL, and which nothing fills but an `onupdate`."""
    return replace(field, default=default, is_fixed=False, keeps_none=True, left_to_sql=None)


def _key(call: Call, fields: Sequence[Field], key: Any) -> list[Field]:
    """Return those that are the key; raises ConfigurationError unless the database says so."""
    target = call.target
    if key is None:
        columns = [column for column in target.table.c if column.primary_key]
    else:
        columns = [field.column for field in fields_of(target, key, "key")]
    names = [column.name for column in columns]
    facts = ask_key(call.connection, call.table_name, names)
    if not names or (facts is not None and not facts.is_unique):
        listed = ", ".join(names) or "a primary key"
        raise ConfigurationError(
            f"{call.name} needs a key that is unique: {target.name} has no unique index of "
            f"{listed} over all of its rows"
        )
    return [field for column in columns for field in fields if field.column is column]


def _check_key(call: Call, key: Sequence[Field], given: Shaped) -> None:
    names = [str(field.key) for field in key]
    for shape in given.shapes:
        if not set(names) <= set(shape):
            raise ConfigurationError(
                f"{call.name} finds rows by {', '.join(names)}: name it in each"
            )


class _Changing:
    """The changes of one call, by its key."""

    def __init__(self, call: Call, key: Any) -> None:
        self._call = call
        self._version = _version(call)
        self._by_context: list[Field] = []
        self.fields = [self._field(f) for f in call.target.fields if f.column.computed is None]
        self.key = _key(call, self.fields, key)
        self._others = [field for field in self.fields if field not in self.key]

    def _field(self, field: Field) -> Field:
        """Return a field with what makes its value in a row that does not give it."""
        made: Any = field.column.onupdate
        changing = _as_given(field, None if made is None else maker_of(made))
        if made is not None and made.is_callable and changing.default is None:
            self._by_context.append(changing)
        return changing

    def put(self, stage: Stage, given: Shaped) -> None:
        """Stage rows, each with the columns that it gives and those that are made for it."""
        _check_key(self._call, self.key, given)
        kinds = [self._kind(shape) for shape in given.shapes]
        named = {key for shape in given.shapes for key in shape}
        fields = [f for f in self.fields if f.key in named or f.default is not None]
        with self._call.errors_of("UPDATE"):
            rows, may_lack = filled(fields, given, bool, self._call.dialect)
        stage.add(fields, rows, kinds, given.kinds, complete=not may_lack)

    def _kind(self, shape: Sequence[str]) -> Kind:
        for field in self._by_context:
            if field.key not in shape:
                raise ConfigurationError(
                    f"the onupdate of {self._call.target.name}.{field.key} asks for its context: "
                    "give its value"
                )
        self._call.target.refuse_made_there(shape)
        return tuple(field for field in self._others if field.key in shape)

    def perform(self, stage: Stage) -> Updated:
        updated = found = 0
        for kind, condition in stage.kinds:
            row: Any = self._call.execute(self._statement(stage, kind, condition)).one()
            updated += row[0]
            found += row[1]
        return Updated(updated, found - updated, stage.count - found)

    def _statement(
        self, stage: Stage, kind: Kind, condition: ColumnElement[bool] | None
    ) -> Select[Any]:
        """Change rows, and count them and those that are there, as of one moment."""
        by = [*self.key, *(field for field in kind if field.column is self._version)]
        conditions = [_same(field, stage) for field in by]
        if condition is not None:
            conditions.append(condition)
        table = self._call.target.table
        there = select(func.count()).select_from(table.join(stage.table, and_(*conditions)))
        given = [field for field in kind if field.column is not self._version]
        if not given:
            return select(literal(0), there.scalar_subquery())
        made = [f for f in self._others if f.default is not None and f not in kind]
        values: dict[Any, Any] = {field.column: stage[field] for field in (*given, *made)}
        if self._version is not None and _is_counted(self._call):
            values[self._version] = self._version + 1
        changed = differ((field.column for field in given), (stage[field] for field in given))
        done = (
            update_of(table)
            .where(*conditions, changed)
            .values(values)
            .returning(literal(1).label("one"))
            .cte("async_loader_done")
        )
        count = select(func.count()).select_from(done)
        return select(count.scalar_subquery(), there.scalar_subquery())


def _same(field: Field, stage: Stage) -> ColumnElement[bool]:
    """Return the database's equality: a type's own operators may take more to be equal."""
    return type_coerce(field.column, NullType()) == stage[field]


def _version(call: Call) -> ColumnElement[Any] | None:
    """Return the column of versions; raises ConfigurationError where only objects can have one."""
    mapper = call.target.mapper
    if mapper is None or mapper.version_id_col is None:
        return None
    if mapper.version_id_generator is not False and not _is_counted(call):
        raise ConfigurationError(
            f"{call.name} cannot make the versions of {call.target.name}: its generator is the "
            "application's"
        )
    return mapper.version_id_col


def _is_counted(call: Call) -> bool:
    mapper = call.target.mapper
    return mapper is not None and counts_versions(mapper)


def _deleted(call: Call, stage: Stage, key: Sequence[Field]) -> Deleted:
    each = select(*(stage[field] for field in key)).distinct().subquery()
    count: int = call.execute(select(func.count()).select_from(each)).scalar_one()
    conditions = [_same(field, stage) for field in key]
    deleted: int = call.execute(delete(call.target.table).where(*conditions)).rowcount
    return Deleted(deleted, count - deleted)


def _as_rows(call: Call, names: Sequence[str], keys: Any) -> Any:
    """Return keys as rows that name them; what is no iterable stays, to be refused as such."""
    if isinstance(keys, Mapping | str | bytes):
        return keys
    if isinstance(keys, Iterable):
        return (_as_row(call, names, one) for one in keys)
    return _as_rows_ahead(call, names, keys) if isinstance(keys, AsyncIterable) else keys


async def _as_rows_ahead(
    call: Call, names: Sequence[str], keys: AsyncIterable[Any]
) -> AsyncIterator[Any]:
    async for one in keys:
        yield _as_row(call, names, one)


def _as_row(call: Call, names: Sequence[str], given: Any) -> Mapping[str, Any]:
    if isinstance(given, Mapping):
        return {**given}
    values = tuple(given) if isinstance(given, SqlRow | tuple | list) else (given,)
    if len(values) != len(names):
        raise ConfigurationError(
            f"a key of {call.target.name} has {len(names)} values ({', '.join(names)}), "
            f"not {len(values)}"
        )
    return dict(zip(names, values, strict=True))

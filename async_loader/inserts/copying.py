"""
Rows without objects: a model's rows streamed through COPY in the session's transaction.

COPY names its columns once. Rows that are all alike go through one COPY, made into records while
the server takes those before; the others are sorted, a chunk at a time, by the attributes they
have. An async iterable may itself read from the session, so it rests while a COPY runs. A
column without a server default is always named, and NULL where a row lacks it; a server default
applies where a row lacks it. Cursor events do not hear of it: COPY passes by the cursor.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from operator import itemgetter
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.util import greenlet_spawn

from async_loader.errors import ConfigurationError
from async_loader.inserts.plans import ColumnPlan, Role, TablePlan, mapper_plan

Row = Mapping[str, Any] | tuple[Any, ...]
Record = Callable[[Any], Any]

CHUNK = 50_000  # rows held at a time
SLICE = 1_000  # rows looked at together while a COPY runs
_MISSING: Any = object()


async def insert_rows(
    session: AsyncSession, model: type[Any], rows: Iterable[Row] | AsyncIterable[Row]
) -> int:
    """Insert rows of a model with one table and return how many.

    `rows` is an iterable or async iterable of dicts by attribute name, or of tuples in the
    order of the table's columns, with or without the key that the server makes. Python
    defaults and types are applied; no object is made, no event fires, nothing is read back.
    Memory is bounded whatever the number of rows. Pending objects are flushed first when the
    session autoflushes. Raises ConfigurationError for a model or row that COPY cannot take,
    and SQLAlchemy's errors for those of the database; the caller rolls back.
    """
    if session.sync_session.autoflush:
        await session.flush()
    mapper: Any = inspect(model)
    connection = await session.connection(bind_arguments={"mapper": mapper})
    target = _target(mapper, connection)
    await _begin(connection)
    count = 0
    async for source in _sources(rows):
        while chunk := list(islice(source, SLICE)):
            columns, alike = _alike(target, chunk, source, connection.dialect)
            if alike is not None:
                await _copy(connection, target, columns, chain.from_iterable(alike))
                count += alike.count
                if alike.error is not None:
                    raise alike.error
                chunk = alike.rest
            if chunk:
                chunk += islice(source, max(0, CHUNK - len(chunk)))
            for columns, records in _by_columns(target, chunk, connection.dialect):
                await _copy(connection, target, columns, records)
            count += len(chunk)
    return count


async def _begin(connection: AsyncConnection) -> None:
    """Begin the transaction on the server: COPY passes by the cursor, which would have done so."""
    raw = await connection.get_raw_connection()
    driver: Any = raw.driver_connection
    if not driver.is_in_transaction():
        await connection.exec_driver_sql("SELECT 1")


@dataclass(frozen=True, slots=True, eq=False)
class _Target:
    """A table and what a row of a model needs before it goes in."""

    name: str
    schema: str | None
    columns: tuple[ColumnPlan, ...]
    generated: str | None  # the attribute that tuples may leave out
    fixed: dict[str, Any]  # the polymorphic identity


def _target(mapper: Any, connection: AsyncConnection) -> _Target:
    if connection.dialect.driver != "asyncpg":
        raise ConfigurationError("insert_rows needs PostgreSQL through asyncpg")
    plan = mapper_plan(mapper, connection.dialect)
    if len(plan.tables) != 1:
        why = plan.reason or "its rows lie in several tables"
        raise ConfigurationError(f"insert_rows cannot insert {mapper.class_.__name__}: {why}")
    (table,) = plan.tables.values()
    options: Any = connection.sync_connection
    translation = options.get_execution_options().get("schema_translate_map") or {}
    fixed = {}
    if mapper.polymorphic_on is not None and mapper._polymorphic_attr_key:
        fixed[mapper._polymorphic_attr_key] = mapper.polymorphic_identity
    return _Target(
        name=table.table.name,
        schema=translation.get(table.table.schema, table.table.schema),
        columns=table.columns,
        generated=_generated(table),
        fixed=fixed,
    )


def _generated(table: TablePlan) -> str | None:
    return table.generated.key if table.generated is not None else None


async def _sources(
    rows: Iterable[Row] | AsyncIterable[Row],
) -> AsyncIterator[Iterator[Row]]:
    """Yield the rows, those of an async iterable chunk by chunk."""
    if not isinstance(rows, AsyncIterable):
        yield iter(rows)
        return
    chunk: list[Row] = []
    async for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK:
            yield iter(chunk)
            chunk = []
    yield iter(chunk)


class _Alike:
    """Records of rows like the first, slice by slice; `rest` is the first slice that differs."""

    def __init__(self, chunk: list[Row], source: Iterator[Row], record: Record | None) -> None:
        self.rest = chunk
        self.count = 0  # rows whose records were given out
        self.error: Exception | None = None
        self._source = source
        self._record = record
        self._kind, self._length = type(chunk[0]), len(chunk[0])

    def __iter__(self) -> Iterator[list[Any]]:
        while self.rest:
            records = self.records(self.rest)
            if records is None:
                return
            yield records
            self.count += len(records)
            self.rest = []
            try:
                self.rest = list(islice(self._source, SLICE))
            except Exception as error:
                self.error = error

    def records(self, rows: list[Row]) -> list[Any] | None:
        """Return what COPY takes, or None when a row is of another kind."""
        if set(map(type, rows)) != {self._kind} or set(map(len, rows)) != {self._length}:
            return None
        if self._record is None:
            return rows
        try:
            # As many keys as the first row, and all of its keys: the same keys.
            return list(map(self._record, rows))
        except KeyError:
            return None


def _alike(
    target: _Target, chunk: list[Row], source: Iterator[Row], dialect: Any
) -> tuple[list[str], _Alike | None]:
    """Return the columns and the way of rows that need no more than to be put in order."""
    first = chunk[0]
    if type(first) not in {dict, tuple}:
        return [], None
    columns, record = _way(target, len(first), first, dialect)
    plain = record is None or isinstance(record, itemgetter)
    if not plain or len(columns) != len(first):
        return columns, None
    alike = _Alike(chunk, source, record)
    return columns, alike if alike.records(chunk) is not None else None


def _by_columns(
    target: _Target, chunk: list[Row], dialect: Any
) -> Iterator[tuple[list[str], Iterable[Any]]]:
    """Return the COPYs for rows of any kind: one for each set of attributes."""
    for shape, same in _by_shape(chunk).items():
        columns, record = _way(target, shape, same[0], dialect)
        yield columns, map(record, same) if record else same


def _by_shape(chunk: list[Row]) -> dict[Any, list[Row]]:
    """Sort rows by what they have: the attributes of a dict, the length of a tuple."""
    shapes: dict[Any, list[Row]] = {}
    keys: Any = None
    same: list[Row] = []
    for row in chunk:
        now: Any = len(row) if isinstance(row, tuple) else row.keys()
        if now != keys:
            keys = now
            shape = now if isinstance(now, int) else frozenset(now)
            same = shapes.setdefault(shape, [])
        same.append(row)
    return shapes


def _way(target: _Target, shape: Any, row: Row, dialect: Any) -> tuple[list[str], Record | None]:
    """Return the columns of the COPY for rows like this one, and how they become records."""
    if isinstance(row, tuple):
        names = _tuple_names(target, shape)
        places: dict[str, Any] = {name: index for index, name in enumerate(names)}
    else:
        places = {name: name for name in row}
        unknown = places.keys() - {column.key for column in target.columns}
        if unknown:
            raise ConfigurationError(f"{target.name} has no attribute {', '.join(unknown)}")
    columns: list[str] = []
    makers: list[tuple[Any, Any, Any]] = []  # place in the row, default, bind processor
    for column in target.columns:
        place = places.get(column.key, _MISSING) if column.key is not None else _MISSING
        if place is _MISSING and _is_left_out(target, column):
            continue
        columns.append(column.column.name)
        bind = column.column.type._cached_bind_processor(dialect)
        makers.append((place, _default(target, column), bind))
    in_order = isinstance(row, tuple) and [place for place, _, _ in makers] == list(range(shape))
    return columns, _record(makers, in_order=in_order)


def _tuple_names(target: _Target, length: int) -> list[str]:
    names = [column.key for column in target.columns if column.key is not None]
    without = [name for name in names if name != target.generated]
    if length not in {len(names), len(without)}:
        raise ConfigurationError(
            f"a row of {target.name} has {len(names)} values, or {len(without)} without the "
            f"key that the server makes, not {length}"
        )
    return names if length == len(names) else without


def _is_left_out(target: _Target, column: ColumnPlan) -> bool:
    """Tell whether the server fills a column that the rows lack; refuse what nobody can."""
    default: Any = column.column.default
    if column.key in target.fixed or column.role not in {Role.ABSENT, Role.DEFAULT}:
        return False
    if column.role is Role.DEFAULT and column.default is not None:
        return False
    if default is not None and not (default.is_sequence and default.optional):
        raise ConfigurationError(
            f"insert_rows cannot make the default of {column.column.name}: "
            "give the value, or add objects to a session"
        )
    return True


def _default(target: _Target, column: ColumnPlan) -> Callable[[], Any] | None:
    if column.key in target.fixed:
        value = target.fixed[column.key]
        return lambda: value
    return column.default


def _record(makers: list[tuple[Any, Any, Any]], *, in_order: bool) -> Record | None:
    """Return a function from row to record; None where a row is its own record."""
    if all(default is None and bind is None for _, default, bind in makers):
        places = [place for place, _, _ in makers]
        if _MISSING not in places:
            if in_order:
                return None
            return itemgetter(*places) if len(places) > 1 else lambda row: (row[places[0]],)

    def record(row: Any) -> list[Any]:
        values = []
        for place, default, bind in makers:
            value = None if place is _MISSING else row[place]
            if value is None and default is not None:
                value = default()
            values.append(value if bind is None else bind(value))
        return values

    return record


async def _copy(
    connection: AsyncConnection, target: _Target, columns: list[str], records: Iterable[Any]
) -> None:
    pooled = await connection.get_raw_connection()
    driver: Any = pooled.driver_connection
    try:
        await driver.copy_records_to_table(
            target.name, schema_name=target.schema, columns=columns, records=records
        )
    except Exception as error:
        statement = f"COPY {target.name} ({', '.join(columns)}) FROM STDIN"
        await greenlet_spawn(_raise_as_sqlalchemy, connection, pooled, error, statement)
        raise


def _raise_as_sqlalchemy(
    connection: AsyncConnection, pooled: Any, error: Exception, statement: str
) -> None:
    """Raise what a failing statement would have raised; return for errors of other kinds."""
    sync: Any = connection.sync_connection
    try:
        pooled.dbapi_connection._handle_exception(error)
    except sync.dialect.loaded_dbapi.Error as translated:
        sync._handle_dbapi_exception(translated, statement, None, None, None)
    except Exception as same:
        if same is not error:
            raise

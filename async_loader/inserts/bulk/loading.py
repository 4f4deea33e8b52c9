"""
The rows of one call: read, prepared and sent, a chunk at a time, all of them or none.

    rows -> chunks -> tuples and their shapes -> values -> COPY or INSERT
    (source)          (source)                   (records) (copying, pages)

What a COPY names, it names for all its rows. Rows that differ in columns which the server fills
go through one COPY for each set of these, unless a default would show that a row was moved: then
the keys are drawn first, or the rows go by INSERT, as they came.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple, Protocol

from sqlalchemy import text
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from ...errors import ConfigurationError
from .._sqlalchemy import bind_processor, raise_as_statement
from . import catalogue
from .catalogue import ColumnFacts, TableFacts
from .copying import binary_codecs, copy
from .method import are_as_typed, reason_of_column, reason_of_rows
from .pages import PAGE, insert_by_orm, insert_page
from .records import ABSENT, Values, bound, filled
from .source import Shaped, dicts, shaped
from .target import Field, Target

Send = Callable[[], None]

FEW = 50  # rows that are in by INSERT before the catalogue has said whether COPY is right


class Sender(Protocol):
    """Makes of a chunk of rows, and the number of those before it, what sends them."""

    def __call__(self, chunk: list[Any], before: int, /) -> list[Send]: ...


def load(
    connection: Connection,
    chunks: Iterator[list[Any]],
    sender: Sender,
    known: int,
    progress: Callable[[int], Any] | None = None,
) -> int:
    """Send all rows or none, and return how many; `known` is their number, or -1."""
    tell = progress or (lambda _count: None)
    count = 0
    sends: list[Send] = []
    if 0 <= known <= PAGE:
        first = next(chunks, [])
        count = len(first)
        sends = sender(first, 0) if first else []
    if count == known and len(sends) < 2:
        for send in sends:  # one statement is all or nothing by itself
            send()
        tell(count)
        return count
    with all_or_nothing(connection):
        for send in sends:
            send()
        if count:
            tell(count)
        for chunk in chunks:
            for send in sender(chunk, count):
                send()
            count += len(chunk)
            tell(count)
    return count


@contextmanager
def all_or_nothing(connection: Connection) -> Iterator[None]:
    """A savepoint; in AUTOCOMMIT a transaction, unless somebody began one by hand."""
    raw: Any = connection.connection
    if not raw.dbapi_connection.autocommit:
        with connection.begin_nested():
            yield
        return
    begin, end, undo = "BEGIN", "COMMIT", "ROLLBACK"
    if _is_in_transaction(raw.driver_connection):
        begin, end = "SAVEPOINT async_loader", "RELEASE SAVEPOINT async_loader"
        undo = "ROLLBACK TO SAVEPOINT async_loader"
    connection.exec_driver_sql(begin)
    try:
        yield
    except BaseException:
        if not (connection.closed or connection.invalidated):
            connection.exec_driver_sql(undo)
        raise
    connection.exec_driver_sql(end)


def _is_in_transaction(driver: Any) -> bool:
    if hasattr(driver, "is_in_transaction"):
        return bool(driver.is_in_transaction())
    return bool(driver.info.transaction_status)  # psycopg: 0 is idle


class OrmSender:
    """Rows of a class with several tables, which the ORM takes apart."""

    def __init__(self, session: Session | None, target: Target) -> None:
        if session is None:
            raise ConfigurationError(
                f"the rows of {target.name} lie in several tables: give a session, not a connection"
            )
        self._session, self._target = session, target

    def __call__(self, chunk: list[Any], before: int, /) -> list[Send]:
        rows = dicts(self._target, chunk, before)
        return [
            partial(insert_by_orm, self._session, self._target, rows[start : start + PAGE])
            for start in range(0, len(rows), PAGE)
        ]


class _Group(NamedTuple):
    """Rows that go together: a value for each field, or ABSENT for those that may lack it."""

    fields: list[Field]
    rows: Sequence[Values]
    may_lack: Collection[Field]


class TableSender:
    """Rows of one table, by COPY where the table, the columns and the values allow it."""

    def __init__(
        self, connection: Connection, target: Target, options: Mapping[str, Any], known: int
    ) -> None:
        self._connection, self._target, self._options = connection, target, options
        self._dialect = connection.dialect
        both = {**connection.get_execution_options(), **options}
        self._name = catalogue.sql_name(target.table, both.get("schema_translate_map"))
        self._facts: TableFacts | None = None
        self._has_codec: Callable[[int], bool] = bool
        self._are_few = 0 <= known <= FEW

    def __call__(self, chunk: list[Any], before: int, /) -> list[Send]:
        given = shaped(self._target, chunk, before)
        if self._facts is None and not (self._are_few and self._is_one_statement(given)):
            self._facts = catalogue.ask(self._connection, self._target.table, self._name)
            self._has_codec = binary_codecs(self._connection)
        keys = {key for shape in given.shapes for key in shape}
        fields = [f for f in self._target.fields if f.default is not None or f.key in keys]
        with self._errors_of("INSERT INTO"):
            rows, may_lack = filled(fields, given, self._is_elsewhere, self._dialect)
        return self._sends(_Group(fields, rows, may_lack))

    def _is_one_statement(self, given: Shaped) -> bool:
        """Tell whether rows name the same columns, with a value for each."""
        if len(given.shapes) > 1 or self._target.mapper is None:
            return len(given.shapes) == 1
        return not any(value is None for row in given.rows for value in row)

    @contextmanager
    def _errors_of(self, what: str) -> Iterator[None]:
        """Raise what defaults and types raise as SQLAlchemy does."""
        try:
            yield
        except Exception as error:
            raise_as_statement(self._connection, error, f"{what} {self._name}")

    def _is_elsewhere(self, field: Field) -> bool:
        """Tell whether the server or a SQL expression fills what rows lack."""
        facts = self._facts_of(field)
        return field.left_to_sql is not None or facts is None or facts.is_filled

    def _facts_of(self, field: Field) -> ColumnFacts | None:
        return self._facts.columns.get(field.column.name) if self._facts else None

    def _sends(self, group: _Group) -> list[Send]:
        absent = self._absent(group)
        fields = {kind: _without(group.fields, kind) for kind in dict.fromkeys(absent)}
        reasons = {kind: self._reason(fields[kind]) for kind in fields}
        ordered = self._in_order(fields.values()) if len(fields) > 1 else []
        if ordered:
            drawn = self._with_keys(group, ordered) if not any(reasons.values()) else None
            return self._pages(group) if drawn is None else self._sends(drawn)
        if len(fields) == 1:
            ((kind, reason),) = reasons.items()
            return self._pages(group) if reason or not fields[kind] else self._copies(group, kind)
        all_copied = all(fields.values()) and not any(reasons.values())
        is_bound = self._dialect.driver == "asyncpg" and all_copied
        if is_bound:  # in the order of the rows, which a type of somebody's own may see
            group = group._replace(rows=self._bound(group))
        rows: dict[tuple[int, ...], list[Values]] = {kind: [] for kind in fields}
        for kind, row in zip(absent, group.rows, strict=True):
            rows[kind].append(row)
        sends: list[Send] = []
        for kind, reason in reasons.items():
            part = group._replace(rows=rows[kind])
            by_copy = reason is None and fields[kind]  # a COPY names a column at least
            copies = partial(self._copies, is_bound=is_bound)
            sends += copies(part, kind) if by_copy else self._pages(part)
        return sends

    def _bound(self, group: _Group) -> Sequence[Values]:
        complete = not group.may_lack
        with self._errors_of("COPY"):
            return bound(group.fields, group.rows, self._dialect, complete=complete)

    def _absent(self, group: _Group) -> Sequence[tuple[int, ...]]:
        """Return, for each row, the places of what it leaves to others than COPY to fill."""
        places = [
            place
            for place, field in enumerate(group.fields)
            if field in group.may_lack and self._is_elsewhere(field)
        ]
        if not places:
            return [()] * len(group.rows)
        if len(places) == 1:
            ((place,), absent) = places, (places[0],)
            return [absent if row[place] is ABSENT else () for row in group.rows]
        return [tuple([n for n in places if row[n] is ABSENT]) for row in group.rows]

    def _lacking(self, fields: Sequence[Field]) -> list[Field]:
        given = set(fields)
        return [field for field in self._target.fields if field not in given]

    def _reason(self, fields: Sequence[Field]) -> str | None:
        return reason_of_rows(
            fields, self._lacking(fields), self._facts, self._dialect, self._has_codec
        )

    def _in_order(self, shapes: Iterable[Sequence[Field]]) -> list[ColumnFacts]:
        """Return what the server fills for some rows and tells which of them came first."""
        columns = self._facts.columns.values() if self._facts is not None else ()
        named = [{field.column.name for field in fields} for fields in shapes]
        return [
            column
            for column in columns
            if column.is_in_order and not all(column.name in names for names in named)
        ]

    def _with_keys(self, group: _Group, ordered: Sequence[ColumnFacts]) -> _Group | None:
        """Draw what would tell the order, for all rows that lack it; None when nothing can."""
        facts, *others = ordered
        field = next((f for f in self._target.fields if f.column.name == facts.name), None)
        if field is None or others or facts.draw is None:
            return None
        if bind_processor(field.column.type, self._dialect) is not None:
            return None
        if reason_of_column(field, facts, self._dialect, self._has_codec) is not None:
            return None
        place = group.fields.index(field) if field in group.fields else None
        lacking = [place is None or row[place] is ABSENT for row in group.rows]
        draw = facts.draw.replace(":", "\\:")  # no parameter
        query = text(f"SELECT {draw} FROM generate_series(1, {sum(lacking)})")
        keys = self._connection.execute(query).scalars().all()
        if place is None:
            rows = [[*row, key] for row, key in zip(group.rows, keys, strict=True)]
            return _Group([*group.fields, field], rows, group.may_lack)
        drawn = iter(keys)
        rows = [
            [*row[:place], next(drawn), *row[place + 1 :]] if lacks else [*row]
            for row, lacks in zip(group.rows, lacking, strict=True)
        ]
        return _Group(group.fields, rows, {*group.may_lack} - {field})

    def _copies(
        self, group: _Group, absent: tuple[int, ...], *, is_bound: bool = False
    ) -> list[Send]:
        """Return the COPY of rows that all lack the same of what the server fills."""
        part = group
        if absent:
            kept = [n for n in range(len(group.fields)) if n not in absent]
            rows = [[row[n] for n in kept] for row in group.rows]
            fields = _without(group.fields, absent)
            part = _Group(fields, rows, [f for f in fields if f in group.may_lack])
        records = part.rows if is_bound else self._bound(part)
        assert self._facts is not None
        if self._dialect.driver != "asyncpg" and not are_as_typed(
            part.fields, self._facts, records
        ):
            return self._pages(group)
        columns = [field.column.name for field in part.fields]
        return [partial(copy, self._connection, self._name, columns, records)]

    def _pages(self, group: _Group) -> list[Send]:
        """Return the INSERTs, in the order of the rows: a page names what all its rows give."""
        keys = [field.column.key for field in group.fields]
        rows = [
            {key: value for key, value in zip(keys, row, strict=True) if value is not ABSENT}
            for row in group.rows
        ]
        return [
            partial(insert_page, self._connection, self._target, page, self._options)
            for _, alike in groupby(rows, key=tuple)
            for page in _paged(list(alike))
        ]


def _without(fields: Sequence[Field], absent: tuple[int, ...]) -> list[Field]:
    return [field for n, field in enumerate(fields) if n not in absent]


def _paged(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(rows), PAGE):
        yield rows[start : start + PAGE]

"""
Rows that are inserted, or change the row that has their key: one INSERT ... ON CONFLICT.

Rows are staged, a key is looked for that comes twice, and the statement takes them in the order
of their keys, so that two such calls wait for each other's rows in one order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Executable, func, literal_column, select, true
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.engine import FrozenResult
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import ColumnElement

from ...errors import ConfigurationError
from .._sqlalchemy import counts_versions
from .calling import Call
from .catalogue import KeyFacts, ask, ask_key
from .counts import Upserted
from .given import Changes, Progress
from .records import filled, takes_none_for_nothing
from .source import Shaped, chunks, shaped
from .staging import Kind, Stage, check_duplicates, differ, staged
from .target import Field, Target, fields_of


class Conflict(NamedTuple):
    """What is to happen to a row whose key is there, in fields of the target."""

    action: str
    key: tuple[Field, ...]
    changed: tuple[Field, ...] | None  # to what a row gives; None: all that it gives but keys
    made: Mapping[Field, Any]  # what else is changed, to values and SQL: then every row is written
    returning: tuple[Field, ...]
    duplicates: str


def conflict_of(
    target: Target,
    action: Any,
    *,
    key: Any,
    changes: Changes | None,
    returning: Sequence[Any] | None,
    duplicates: str,
) -> Conflict:
    """Check what a call says; raises ConfigurationError."""
    if action not in {"update", "nothing"}:
        raise ConfigurationError(f'on_conflict is "update" or "nothing", not {action!r}')
    check_duplicates(duplicates)
    if action == "update" and not key:
        raise ConfigurationError(
            'on_conflict="update" needs key=, the attributes of a unique index: key=("sku",)'
        )
    if action == "nothing" and changes is not None:
        raise ConfigurationError('set= is for on_conflict="update"')
    changed: tuple[Field, ...] | None = None
    made: dict[Field, Any] = {}
    if isinstance(changes, Mapping):
        changed = ()
        made = dict(zip(fields_of(target, [*changes], "set"), changes.values(), strict=True))
    elif changes is not None:
        changed = fields_of(target, changes, "set")
    return Conflict(
        action,
        fields_of(target, key or (), "key"),
        changed,
        made,
        fields_of(target, returning or (), "returning"),
        duplicates,
    )


def upsert(call: Call, rows: Any, conflict: Conflict, progress: Progress | None) -> Upserted:
    """Insert or change all rows of a call, or none."""
    call.require_one_table()
    given = chunks(call.target, rows, call.name)
    fields = [field for field in call.target.fields if field.column.computed is None]
    with staged(call, fields) as stage:
        loader = _Loader(call, stage, fields)
        for chunk in given:
            loader.add(shaped(call.target, chunk, stage.count))
            if progress is not None:
                progress(stage.count)
        if not stage.count:
            return Upserted(0, 0, 0)
        return _Upsert(call, stage, fields, conflict).perform()


class _Loader:
    """Puts rows on the stage, with the defaults that Python makes."""

    def __init__(self, call: Call, stage: Stage, fields: Sequence[Field]) -> None:
        self._call, self._stage, self._fields = call, stage, fields
        self._facts = ask(call.connection, call.target.table, call.table_name)

    def add(self, given: Shaped) -> None:
        keys = {key for shape in given.shapes for key in shape}
        self._call.target.refuse_made_there(keys)
        fields = [f for f in self._fields if f.default is not None or f.key in keys]
        dialect = self._call.dialect
        with self._call.errors_of("INSERT INTO"):
            rows, may_lack = filled(fields, given, self._is_elsewhere, dialect)
        careful = takes_none_for_nothing(fields, self._is_elsewhere, dialect)
        empty = {field.key for field, is_so in zip(fields, careful, strict=True) if is_so}
        kinds, kind_of = _kinds(fields, given, empty)
        self._stage.add(fields, rows, kinds, kind_of, complete=not may_lack)

    def _is_elsewhere(self, field: Field) -> bool:
        facts = self._facts.columns.get(field.column.name) if self._facts else None
        return field.left_to_sql is not None or facts is None or facts.is_filled


def _kinds(
    fields: Sequence[Field], given: Shaped, empty: set[str | None]
) -> tuple[list[Kind], Sequence[int]]:
    """Return what rows give, and which of it each does: all but None that is as good as nothing."""
    if len(given.shapes) == 1 and not any(
        row[n] is None
        for n, key in enumerate(given.shapes[0])
        if key in empty
        for row in given.rows
    ):
        return [tuple(field for field in fields if field.key in given.shapes[0])], given.kinds
    kinds: dict[Kind, int] = {}
    seen: dict[tuple[Any, ...], int] = {}  # the shape of a row, and where it has None
    places = [[n for n, key in enumerate(shape) if key in empty] for shape in given.shapes]
    kind_of = []
    for number, row in zip(given.kinds, given.rows, strict=True):
        nothing = (number, *[n for n in places[number] if row[n] is None])
        if nothing not in seen:
            shape = given.shapes[number]
            keys = {key for n, key in enumerate(shape) if n not in nothing[1:]}
            kind = tuple(field for field in fields if field.key in keys)
            seen[nothing] = kinds.setdefault(kind, len(kinds))
        kind_of.append(seen[nothing])
    return list(kinds), kind_of


class _Upsert:
    """The statements that take rows from the stage."""

    def __init__(
        self, call: Call, stage: Stage, fields: Sequence[Field], conflict: Conflict
    ) -> None:
        self._call, self._stage, self._fields, self._conflict = call, stage, fields, conflict
        names = [field.column.name for field in conflict.key]
        facts = ask_key(call.connection, call.table_name, names)
        assert facts is not None
        self._is_new = self._tells_new(facts).label("async_loader_is_new")

    def perform(self) -> Upserted:
        conflict, stage = self._conflict, self._stage
        # One UPDATE notices that a key comes again, unless its first row changed nothing.
        is_noticed = (
            conflict.action == "update"
            and conflict.duplicates == "refuse"
            and len(stage.kinds) == 1
        )
        if conflict.key and not is_noticed:
            stage.settle(conflict.key, conflict.duplicates)
        inserted = updated = 0
        rows: list[Any] = []
        for kind, condition in stage.kinds:
            back = self._executed(self._statement(kind, condition))
            if conflict.returning:
                *names, flag = back().keys()
                rows += back().columns(*names)
                are_new = back().scalars(flag).all()
                new, changed = sum(are_new), len(are_new)
            else:
                counts: Any = back().one()
                new, changed = counts
            inserted += new
            updated += changed - new
        unchanged = stage.count - inserted - updated
        if is_noticed and unchanged:
            stage.settle(conflict.key, conflict.duplicates)
        return Upserted(inserted, updated, unchanged, rows)

    def _executed(self, statement: Insert) -> FrozenResult[Any]:
        """Return the rows that came back, each with whether it is new; or how many are and did."""
        conflict = self._conflict
        query: Executable
        if conflict.returning:
            columns = [field.column.label(field.key) for field in conflict.returning]
            query = statement.returning(*columns, self._is_new)
        else:
            done = statement.returning(self._is_new).cte("async_loader_done")
            query = select(func.count().filter(done.c[0]), func.count()).select_from(done)
        try:
            with self._call.connection.begin_nested():
                return self._call.execute(query).freeze()
        except DBAPIError as error:
            self._refuse(error)
            raise

    def _refuse(self, error: DBAPIError) -> None:
        """Say of what only the server knows of its indexes what to do."""
        target, key = self._call.target, self._conflict.key
        keys = ", ".join(str(field.key) for field in key)
        code = getattr(error.orig, "sqlstate", None)
        if code == "42P10":
            raise ConfigurationError(
                f"{target.name} has no unique index of {keys} alone, without conditions"
            ) from error
        if code == "55000":
            raise ConfigurationError(
                f"{target.name} has a deferrable constraint, which ON CONFLICT cannot use: name "
                "another in key="
            ) from error
        if code == "21000":
            self._stage.settle(key, "refuse")
            raise ConfigurationError(
                f"rows differ in {keys}, but not for the unique index of {target.name}"
            ) from error

    def _tells_new(self, facts: KeyFacts) -> ColumnElement[bool]:
        """
        Return what tells a new row from one that was there.

        A new version of a row that ON CONFLICT had locked first has the lock's transaction in
        xmax, a new row has none. A partitioned table and a view do not show it; PostgreSQL 18 has
        the old row.
        """
        if self._conflict.action == "nothing":
            return true()
        if facts.relkind == "r":
            return literal_column("(xmax = 0)")
        target = self._call.target
        if facts.server >= 18 and target.table.name != "old":  # which is what that then means
            return literal_column("(old.*) IS NULL")
        raise ConfigurationError(
            f"{self._call.name} cannot count what is new in {target.name}, which is partitioned or "
            'a view, before PostgreSQL 18, nor where it is called "old"'
        )

    def _statement(self, kind: Kind, condition: ColumnElement[bool] | None) -> Insert:
        stage, key = self._stage, self._conflict.key
        named = [field for field in self._fields if field in kind or field.default is not None]
        rows = select(*(stage[field] for field in named)).order_by(*(stage[f] for f in key))
        if condition is not None:
            rows = rows.where(condition)
        table = self._call.target.table
        statement = insert(table).from_select([field.column for field in named], rows)
        columns = [field.column for field in key]
        changed = self._changed(kind)
        made = self._conflict.made
        if not changed and not made:
            return statement.on_conflict_do_nothing(index_elements=columns or None)
        given = {field.column: statement.excluded[field.column.key] for field in changed}
        every = given | {field.column: value for field, value in made.items()}
        return statement.on_conflict_do_update(
            index_elements=columns,
            set_=every | self._version(statement),
            where=None if made else differ(given.keys(), given.values()),
        )

    def _changed(self, kind: Kind) -> Sequence[Field]:
        """Return what becomes what a row gives."""
        conflict = self._conflict
        if conflict.action == "nothing":
            return ()
        if conflict.changed is not None:
            return conflict.changed
        return [
            field
            for field in kind
            if field not in conflict.key and not field.column.primary_key and not field.is_fixed
        ]

    def _version(self, statement: Insert) -> dict[Any, Any]:
        """Return the next version of a row that changes, where the mapper makes one."""
        target = self._call.target
        fixed = [field for field in target.fields if field.is_fixed]
        if not fixed:
            return {}
        (field,) = fixed
        column = field.column
        counted = counts_versions(target.mapper)
        return {column: column + 1 if counted else statement.excluded[column.key]}

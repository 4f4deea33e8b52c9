"""Rows of one table: the statements, and what their results do to the objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import Table
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Mapper
from sqlalchemy.orm import exc as orm_exc

from .calls import has_numbers_too_large
from .execute import Rows, execute
from .expressions import Template
from .garbage import gc_paused
from .names import Names
from .plans import ColumnPlan, FastPathUnsupportedError, MapperPlan, Returned, Role, TablePlan
from .rows import Group, Pending, Values, collect
from .sizes import cut
from .statements import InsertText


class Statement(NamedTuple):
    """An insert, and what it leaves to be done."""

    sql: str
    by_server: bool  # keys come back with it
    read_back: tuple[Returned, ...]
    expired: tuple[str, ...]  # attributes that are loaded when looked at


class Insert:
    """Objects whose rows go into one table in the same way."""

    def __init__(
        self,
        connection: Connection,
        mapper: Mapper[Any],
        plan: TablePlan,
        pending: Pending,
        names: Names,
    ) -> None:
        self.connection = connection
        self.mapper = mapper
        self.plan = plan
        self.pending = pending
        self.names = names
        self.drawn: tuple[Sequence[int], Values] = ([], [])  # rows, and keys asked for
        self.written: set[int] = set()
        self._sent: list[tuple[Group, Statement, Rows]] = []
        self.batch = collect(plan, pending.dicts, names)

    def lacking(self) -> Sequence[int]:
        """Return the rows whose key the server has to make; refuse other missing keys."""
        plan, batch = self.plan, self.batch
        generated = plan.generated
        if batch.absent or batch.partial:
            for key in plan.keys:
                if key is not generated and batch.rows_lacking(key):
                    raise FastPathUnsupportedError(f"nothing fills the key {key.column.name}")
            if generated is not None:
                return batch.rows_lacking(generated)
        return ()

    def may_be_refused(self) -> bool:
        """Tell whether an object brings a key, which may be another's, or a number too large."""
        batch, plan = self.batch, self.plan
        if plan.table is self.mapper.base_mapper.local_table:  # else it has that one's key
            defaulted = {one.column: len(one.rows) for one in batch.defaults}
            keys = [key for key in plan.keys if key not in batch.absent]
            if any(defaulted.get(key, 0) < batch.count for key in keys):
                return True
        return has_numbers_too_large(batch, self.connection.dialect)

    def gives(self, to: Callable[[ColumnPlan], bool]) -> bool:
        """Tell whether an object has a value for one of these columns."""
        return any(
            value is not None
            for column, values, _ in self.batch.value_columns()
            if to(column)
            for value in values
        )

    def is_one_statement(self) -> bool:
        """Tell whether the rows lack nothing but keys that one statement can make."""
        return self.batch.patterns(ignoring=self.plan.generated) == 1

    def has_array(self) -> bool:
        """Tell whether there is a column to count the rows by when keys are left out."""
        if not self.batch.computed:
            return bool(self.batch.whole)
        computed = [column for column, _ in self.batch.computed]
        return any(column not in computed for column, _ in self.batch.whole)

    @property
    def generated(self) -> ColumnPlan:
        """The key column that the server fills, of a table that has one."""
        if self.plan.generated is None:
            raise AssertionError(f"{self.plan.table} has no key that the server makes")
        return self.plan.generated

    @property
    def generated_key(self) -> str:
        """Its attribute: a key is always mapped."""
        return str(self.generated.key)

    def processed(self, raw: Sequence[Any]) -> Values:
        """Return keys as attributes hold them."""
        return _processed(self.generated.column, list(raw), self.connection)

    def fill(self, rows: Sequence[int], raw: Values) -> None:
        """Take keys asked for beforehand; objects get them when their rows are in."""
        keys = self.processed(raw)
        self.batch.fill(self.generated, rows, keys, raw)
        self.drawn = (rows, keys)

    def send(self, *, in_order: bool, statement_bytes: int) -> None:
        """Insert what has been prepared; objects change in `write_back`, when all is in."""
        for group in self.batch.groups(keep_order=in_order):
            for piece in cut(group, statement_bytes):
                statement = self._statement(piece)
                arrays = piece.arrays
                if len(piece.rows) == 1:
                    arrays = [values[0] for values in arrays]
                with gc_paused(len(piece.rows)):
                    result = execute(self.connection, statement.sql, tuple(arrays))
                self._sent.append((piece, statement, result))
                self.written.update(piece.rows)

    def forget_sent(self) -> None:
        """Rows that were sent are no more: their savepoint was rolled back to."""
        self._sent.clear()
        self.written.clear()

    def write_back(self) -> None:
        """Give the objects what came of their rows."""
        for group, statement, result in self._sent:
            with gc_paused(len(group.rows)):
                if self.drawn[0]:
                    self._write_drawn(group)
                if statement.by_server or statement.read_back:
                    self._read_back(group, result, statement)
                self._write_defaults(group)
                if statement.expired:
                    self._expire(group, statement.expired)
        self._sent.clear()

    def made(self) -> list[list[tuple[ColumnPlan, Any]]]:
        """Return, row by row, the keys that were drawn and what defaults have made."""
        found: list[list[tuple[ColumnPlan, Any]]] = [[] for _ in range(self.batch.count)]
        for row, key in zip(*self.drawn, strict=True):
            found[row].append((self.generated, key))
        for default in self.batch.defaults:
            if default.column.role is Role.DEFAULT:
                for row in default.rows:
                    if default.was_called(row):
                        found[row].append((default.column, default.values[row]))
        return found

    def is_sent_at_once(self) -> bool:
        """Tell whether SQLAlchemy, too, would send all rows before it looks at a result."""
        batch = self.batch
        return batch.count == 1 or (
            not batch.partial
            and not batch.computed
            and all(len(one.rows) == batch.count for one in batch.defaults)
        )

    def _statement(self, group: Group) -> Statement:
        """Return the statement for a group's columns, made at its first use."""
        columns = [column for column, _ in group.columns]
        computed = [(column, template) for column, template, _ in group.computed]
        table = self.plan.name
        if self.names.translation:
            table = self.names.table(self.plan.table)
        signature = (table, len(group.rows) > 1, *columns, *computed)
        statement = self.plan.statements.get(signature)
        if statement is None:
            statement = self._new_statement(table, columns, computed, len(group.rows) > 1)
            self.plan.statements[signature] = statement
        return statement

    def _new_statement(
        self,
        table: str,
        columns: list[ColumnPlan],
        computed: list[tuple[ColumnPlan, Template]],
        several: bool,
    ) -> Statement:
        plan = self.plan
        named = {column.column.key for column in columns}
        by_server = plan.generated is not None and plan.generated.column.key not in named
        read_back: tuple[Returned, ...] = ()
        if plan.returned and not plan.server_keys <= named:
            read_back = tuple(item for item in plan.returned if item.column.key not in named)
        text = InsertText(self.names, columns, [template for _, template in computed])
        targets = [column.sql for column in columns] + [column.sql for column, _ in computed]
        returning = [key.sql for key in plan.keys] if by_server or read_back else []
        returning += [item.sql for item in read_back]
        if several:
            sql = text.rows(table, targets, returning, ordered=by_server)
        else:
            sql = text.row(table, targets, returning)
        # What the server made and nobody reads back is loaded when it is looked at.
        made = {key: name for name, key in plan.expires.items() if name not in named}
        made |= {column.key: column.column.key for column, _ in computed if column.key}
        back = {item.column.key for item in read_back}
        expired = tuple(key for key, name in made.items() if name not in back)
        return Statement(sql, by_server, read_back, expired)

    def _read_back(self, group: Group, result: Rows, statement: Statement) -> None:
        """Match returned rows with objects: by the counter's order, or as inserted."""
        plan = self.plan
        rows, types = result
        if len(rows) != len(group.rows):
            raise rows_missing(self.mapper, len(group.rows))
        rows = self._in_order(group, rows, types, by_server=statement.by_server)
        wanted: list[tuple[int, str, Any]] = []
        if statement.by_server:
            generated = self.generated
            place = plan.keys.index(generated)
            wanted.append((place, self.generated_key, generated.column))
        for index, item in enumerate(statement.read_back, start=len(plan.keys)):
            wanted.append((index, item.key, item.column))
        for index, key, column in wanted:
            memo = (id(column), types[index])
            if memo not in plan.processors:
                dialect = self.connection.dialect
                process = column.type._cached_result_processor(dialect, types[index])
                plan.processors[memo] = process
            process = plan.processors[memo]
            raw = [row[index] for row in rows]
            self._write(group.rows, key, raw if process is None else list(map(process, raw)))

    def _in_order(
        self, group: Group, rows: Sequence[Any], types: Sequence[Any], *, by_server: bool
    ) -> Sequence[Any]:
        plan = self.plan
        if len(rows) == 1:
            return rows
        if by_server:
            place = plan.keys.index(self.generated)
            return sorted(rows, key=itemgetter(place))
        # PostgreSQL returns rows as it inserted them, but that is no promise: the keys tell, as
        # they were sent or, where the driver returns them in another form, as objects have them.
        raw = [tuple(row[: len(plan.keys)]) for row in rows]
        sent = self._keys(group, self.batch.bound)
        if raw == sent:
            return rows
        processed = [
            _processed(key.column, [row[n] for row in rows], self.connection, types[n])
            for n, key in enumerate(plan.keys)
        ]
        found = list(zip(*processed, strict=True))
        given = self._keys(group, dict(self.batch.whole))
        for came, wanted in ((found, given), (raw, sent)):
            by_key = dict(zip(came, rows, strict=True))
            if by_key.keys() == set(wanted):
                return [by_key[key] for key in wanted]
        raise orm_exc.FlushError(
            f"The keys that the INSERT for {self.mapper} returned are not the ones sent."
        )

    def _keys(self, group: Group, values: Mapping[ColumnPlan, Values]) -> list[tuple[Any, ...]]:
        return [tuple([values[key][row] for key in self.plan.keys]) for row in group.rows]

    def _write_drawn(self, group: Group) -> None:
        rows, keys = self.drawn
        if len(group.rows) != self.batch.count:
            mine = set(group.rows)
            pairs = [(row, key) for row, key in zip(rows, keys, strict=True) if row in mine]
            rows, keys = [row for row, _ in pairs], [key for _, key in pairs]
        self._write_keys(rows, keys)

    def _write_keys(self, rows: Sequence[int], keys: Values) -> None:
        self._write(rows, self.generated_key, keys)

    def _write(self, rows: Sequence[int], key: str, values: Values) -> None:
        dicts = self.pending.dicts
        for row, value in zip(rows, values, strict=True):
            dicts[row][key] = value

    def _write_defaults(self, group: Group) -> None:
        dicts, states = self.pending.dicts, self.pending.states
        mine = set(group.rows) if len(group.rows) < self.batch.count else None
        for default in self.batch.defaults:
            key = default.column.key
            if key is None:
                continue
            for row in default.rows:
                if mine is None or row in mine:
                    dicts[row][key] = default.values[row]
                    states[row].committed_state.pop(key, None)

    def _expire(self, group: Group, keys: tuple[str, ...]) -> None:
        pending = self.pending
        for row in group.rows:
            pending.states[row]._expire_attributes(pending.dicts[row], keys)


def rows_missing(mapper: Mapper[Any], rows: int) -> orm_exc.FlushError:
    """Return what SQLAlchemy raises for rows that did not come back, in its words."""
    if rows == 1:
        missing = f"Single-row INSERT statement for {mapper} did not produce a new primary key "
        missing += "result being invoked."
    else:
        missing = f"Multi-row INSERT statement for {mapper} did not produce the correct number "
        missing += "of INSERTed rows for RETURNING."
    return orm_exc.FlushError(
        f"{missing}  Ensure there are no triggers or special driver issues preventing INSERT "
        "from functioning properly."
    )


def _processed(column: Any, raw: Values, connection: Connection, code: int | None = None) -> Values:
    process = column.type._cached_result_processor(connection.dialect, code)
    return raw if process is None else list(map(process, raw))


def inserts_of(
    connection: Connection,
    table: Table,
    parts: list[tuple[MapperPlan, Pending]],
    states: Sequence[Any],
) -> list[Insert]:
    """Return what goes into one table; mappers that fill it alike go together, in order."""
    names = Names.of(connection)
    if len(parts) == 1:
        plan, pending = parts[0]
        if table not in plan.tables:
            return []
        return [Insert(connection, plan.mapper, plan.tables[table], pending, names)]
    by_shape: dict[Any, tuple[Any, TablePlan, Pending]] = {}
    by_mapper: dict[Any, Pending] = {}
    for plan, _ in parts:
        table_plan = plan.tables.get(table)
        if table_plan is not None:
            fresh = (plan.mapper, table_plan, Pending([], []))
            by_mapper[plan.mapper] = by_shape.setdefault(table_plan.shape, fresh)[2]
    for state in states:
        mine = by_mapper.get(state.manager.mapper)
        if mine is not None:
            mine.states.append(state)
            mine.dicts.append(state.dict)
    return [
        Insert(connection, mapper, table_plan, pending, names)
        for mapper, table_plan, pending in by_shape.values()
    ]

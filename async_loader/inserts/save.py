"""
Insert the pending objects of one mapper hierarchy: the counterpart of SQLAlchemy's `_save_obj`.

Nothing is written and no attribute changed before everything is known to be understood;
attributes change after their rows are in, so that a failed insert leaves objects as SQLAlchemy
leaves them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy.engine import Connection
from sqlalchemy.orm import Mapper
from sqlalchemy.orm import exc as orm_exc

from async_loader.inserts._sqlalchemy import UOWTransaction, finalize_insert_update
from async_loader.inserts.keys import Wanted, draw, must_ask
from async_loader.inserts.plans import (
    KeySource,
    MapperPlan,
    NotUnderstoodError,
    TablePlan,
    listens,
    mapper_plan,
)
from async_loader.inserts.rows import Group, Sheet, Values, collect
from async_loader.inserts.statements import Translation, insert_statement, table_name

State = Any
Pending = tuple[State, dict[str, Any]]


class Save:
    """The inserts of one flush; it knows what it has inserted."""

    def __init__(self, uow: UOWTransaction) -> None:
        self.uow = uow
        self.session = uow.session
        self.inserted: dict[Mapper[Any], list[Pending]] = {}

    def insert(self, base_mapper: Mapper[Any], states: Sequence[State]) -> None:
        """Insert pending objects of one hierarchy, given in the order they were added.

        Raises NotUnderstoodError, having done nothing, when SQLAlchemy has to do it.
        """
        if self.session.connection_callable is not None:
            raise NotUnderstoodError("the session chooses a connection for each object")
        connection = self.uow.transaction.connection(base_mapper)
        _refuse_connection(connection)
        parts = self._by_mapper(connection, states)
        translation = connection.get_execution_options().get("schema_translate_map")
        tables = base_mapper._sorted_tables
        self._refuse_values(parts)
        for table in tables:
            for plan, pending in parts:
                table_plan = plan.tables.get(table)
                if table_plan is not None:
                    _Insert(connection, plan, table_plan, pending, translation).run()
        for plan, pending in parts:
            self._finish(base_mapper, connection, plan, pending)

    def _by_mapper(
        self, connection: Connection, states: Sequence[State]
    ) -> list[tuple[MapperPlan, list[Pending]]]:
        parts: dict[Mapper[Any], list[Pending]] = {}
        for state in states:
            mapper = state.manager.mapper
            pending = parts.get(mapper)
            if pending is None:
                pending = parts[mapper] = []
            pending.append((state, state.dict))
        if len(parts) > 1:
            raise NotUnderstoodError("several mappers of one hierarchy")
        return [
            (self._understood(mapper, connection, pending), pending)
            for mapper, pending in parts.items()
        ]

    def _understood(
        self, mapper: Any, connection: Connection, pending: list[Pending]
    ) -> MapperPlan:
        plan = mapper_plan(mapper, connection.dialect)
        reason = plan.reason or listens(mapper)
        if reason:
            raise NotUnderstoodError(reason)
        if mapper._validate_polymorphic_identity:
            for state, values in pending:
                mapper._validate_polymorphic_identity(mapper, state, values)
        known = self.session.identity_map
        if len(known):
            keys = plan.identity_keys
            for state, values in pending:
                key = tuple([values.get(name) for name in keys])
                if (mapper._identity_class, key, state.identity_token) in known:
                    raise NotUnderstoodError("an object has the identity of another")
        return plan

    def _refuse_values(self, parts: list[tuple[MapperPlan, list[Pending]]]) -> None:
        for plan, pending in parts:
            if len(plan.tables) > 1:
                dicts = [values for _, values in pending]
                for table_plan in plan.tables.values():
                    collect(table_plan, dicts)

    def _finish(
        self,
        base_mapper: Mapper[Any],
        connection: Connection,
        plan: MapperPlan,
        pending: list[Pending],
    ) -> None:
        if plan.needs_finalize:
            rows = ((state, values, plan.mapper, connection, False) for state, values in pending)
            finalize_insert_update(base_mapper, self.uow, rows)
        self.inserted.setdefault(plan.mapper, []).extend(pending)


def _refuse_connection(connection: Any) -> None:
    if connection._has_events or connection.engine._has_events:
        dispatch = connection.dispatch
        if dispatch.before_execute or dispatch.after_execute:
            raise NotUnderstoodError("somebody listens to before_execute or after_execute")


class _Insert:
    """Rows of one mapper into one of its tables."""

    def __init__(
        self,
        connection: Connection,
        mapper_plan: MapperPlan,
        plan: TablePlan,
        pending: list[Pending],
        translation: Translation | None,
    ) -> None:
        self.connection = connection
        self.mapper_plan = mapper_plan
        self.plan = plan
        self.pending = pending
        self.translation = translation

    def run(self) -> None:
        plan = self.plan
        sheet = collect(plan, [values for _, values in self.pending])
        drawn = self._draw(sheet)
        sql = f"INSERT INTO {plan.table.name}"
        try:
            groups = sheet.groups(keep_order=plan.refers_to_itself)
        except Exception as error:
            _as_statement_error(self.connection, error, sql)
        for group in groups:
            self._emit(group)
        if drawn is not None:
            self._write_keys(*drawn)

    def _draw(self, sheet: Sheet) -> tuple[list[int], Values] | None:
        """Ask for the keys that the insert itself cannot give; refuse what nobody gives."""
        plan, generated = self.plan, self.plan.generated
        for key in plan.keys:
            if key is not generated and (key in sheet.absent or sheet.rows_lacking(key)):
                raise NotUnderstoodError(f"nothing fills the key {key.column.name}")
        if generated is None:
            return None
        rows = sheet.rows_lacking(generated)
        if not rows:
            return None
        if not must_ask(plan, len(rows)):
            one_statement = sheet.patterns(ignoring=generated) == 1
            if len(rows) == 1 or (plan.key_source is KeySource.COUNTER and one_statement):
                return None
        raw = draw(self.connection, [Wanted(plan, len(rows))], self.translation)[0]
        keys = _processed(generated.column, raw, self.connection)
        sheet.fill(generated, rows, keys)
        return rows, keys

    def _emit(self, group: Group) -> None:
        plan, connection = self.plan, self.connection
        names = {column.column.key for column, _ in group.columns}
        by_server = plan.generated is not None and plan.generated.column.key not in names
        returned = plan.returned if not plan.server_keys <= names else ()
        sql = self._statement(group, by_server=by_server, read_back=bool(returned))
        try:
            arrays = tuple(
                values if (bind := column.codec.bind) is None else list(map(bind, values))
                for column, values in group.columns
            )
        except Exception as error:
            _as_statement_error(connection, error, sql)
        result = connection.exec_driver_sql(sql, arrays)
        if by_server or returned:
            self._read_back(group, result, by_server=by_server, read_back=bool(returned))
        self._write_back(group, names, read_back=bool(returned))

    def _statement(self, group: Group, *, by_server: bool, read_back: bool) -> str:
        plan, dialect = self.plan, self.connection.dialect
        ordered = by_server and len(group.rows) > 1
        columns = [column for column, _ in group.columns]
        table = table_name(plan.table, dialect, self.translation)
        signature = (table, tuple(map(id, columns)), ordered, by_server, read_back)
        sql = plan.statements.get(signature)
        if sql is None:
            if not columns:
                raise NotUnderstoodError("no column has a value")
            returning = [key.sql for key in plan.keys] if by_server or read_back else []
            if read_back:
                returning += [item.sql for item in plan.returned]
            sql = insert_statement(
                table, columns, dialect, ordered=ordered, returning=returning
            )
            plan.statements[signature] = sql
        return sql

    def _read_back(self, group: Group, result: Any, *, by_server: bool, read_back: bool) -> None:
        """Match returned rows with objects: by the counter's order, or by their keys."""
        plan = self.plan
        types = [item[1] for item in result.cursor.description]
        rows = result.fetchall()
        if len(rows) != len(group.rows):
            raise orm_exc.FlushError(
                f"Multi-row INSERT statement for {self.mapper_plan.mapper} did not produce the "
                "correct number of INSERTed rows for RETURNING.  Ensure there are no triggers "
                "or special driver issues preventing INSERT from functioning properly."
            )
        columns = [key.column for key in plan.keys]
        if read_back:
            columns += [item.column for item in plan.returned]
        if by_server:
            assert plan.generated is not None
            place = plan.keys.index(plan.generated)
            if len(rows) > 1:
                rows = sorted(rows, key=lambda row: row[place])
        by_column: list[Values] = []
        for index, column in enumerate(columns):
            raw = [row[index] for row in rows]
            by_column.append(_processed(column, raw, self.connection, types[index]))
        if by_server:
            self._write_keys(group.rows, by_column[place])
        if read_back:
            self._write_returned(group, by_column[len(plan.keys) :])

    def _write_keys(self, rows: Sequence[int], keys: Values) -> None:
        assert self.plan.generated is not None
        name = self.plan.generated.key
        assert name is not None
        pending = self.pending
        for row, key in zip(rows, keys, strict=True):
            pending[row][1][name] = key

    def _write_returned(self, group: Group, by_column: list[Values]) -> None:
        pending = self.pending
        for item, values in zip(self.plan.returned, by_column, strict=True):
            if item.key is None or item.column.primary_key:
                continue
            for row, value in zip(group.rows, values, strict=True):
                pending[row][1][item.key] = value

    def _write_back(self, group: Group, names: set[str], *, read_back: bool) -> None:
        plan, pending = self.plan, self.pending
        for column, values, rows in group.defaulted:
            if column.key is not None:
                for row in rows:
                    state, attributes = pending[group.rows[row]]
                    attributes[column.key] = values[row]
                    state.committed_state.pop(column.key, None)
        absent = plan.expires.keys() - names
        if read_back:
            absent -= {item.column.key for item in plan.returned}
        expired = [plan.expires[name] for name in absent]
        if expired:
            for row in group.rows:
                state, attributes = pending[row]
                state._expire_attributes(attributes, expired)
        for source, target in plan.equated:
            for row in group.rows:
                state, attributes = pending[row]
                implementation = state.manager[target].impl
                implementation.set(state, attributes, attributes.get(source), None)


def _processed(
    column: Any, raw: Values, connection: Connection, code: int | None = None
) -> Values:
    process = column.type._cached_result_processor(connection.dialect, code)
    return raw if process is None else list(map(process, raw))


def _as_statement_error(connection: Any, error: Exception, sql: str) -> None:
    """Raise what SQLAlchemy raises for an error while parameters are prepared."""
    connection._handle_dbapi_exception(error, sql, None, None, None)

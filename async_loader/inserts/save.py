"""
Insert the pending objects of one mapper hierarchy: the counterpart of SQLAlchemy's `_save_obj`.

Nothing is written and no attribute changed before everything is known to be understood;
attributes change after their rows are in, so that a failed insert leaves objects as SQLAlchemy
leaves them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from operator import attrgetter
from typing import Any

from sqlalchemy import Table
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Mapper

from ._sqlalchemy import UOWTransaction, finalize_insert_update, has_one_bind, is_autocommit
from .calls import bind_once, call_defaults
from .catalogue import TableFacts
from .equated import copy_keys_down
from .execute import NotSentError
from .garbage import gc_paused
from .insert import Insert, inserts_of
from .keys import Wanted, come_sorted, draw, must_ask
from .names import Names
from .plans import FastPathUnsupportedError, MapperPlan, listens, mapper_plan
from .refusals import refuse_before_keys, refuse_given, refuse_rows, seen_of
from .resending import Levels, Resending, Savepoint, is_of_rows
from .rows import Pending, collect
from .sizes import refuse_long

State = Any
_EXPIRED = attrgetter("expired_attributes")
MapperBatch = tuple[MapperPlan, Pending]


class Save:
    """The inserts of one flush; it knows what it has inserted."""

    def __init__(self, uow: UOWTransaction, reserve: int, statement_bytes: int) -> None:
        self.uow = uow
        self.reserve = reserve
        self.statement_bytes = statement_bytes
        self.session = uow.session
        self.inserted: dict[Mapper[Any], Pending] = {}
        self.connection: Connection | None = None
        self.ahead: dict[Table, list[Any]] = {}  # keys drawn before the first insert

    def insert(
        self, base_mapper: Mapper[Any], states: Sequence[State], levels: Levels | None = None
    ) -> None:
        """Insert pending objects of one hierarchy, given in the order they were added.

        With levels, in that of a tree, which has one table. Raises FastPathUnsupportedError, having
        done nothing, when SQLAlchemy has to do it.
        """
        with gc_paused(len(states)):
            connection, parts = self.understood(base_mapper, states)
        if len(parts) == 1 and len(parts[0][0].tables) == 1:
            tables: Any = parts[0][0].tables
        else:
            self._refuse_values(connection, parts)
            tables = base_mapper._sorted_tables
        for table in tables:
            inserts = inserts_of(connection, table, parts, states)
            done = self._save_table(base_mapper, connection, inserts, levels)
            copy_keys_down(self.uow, table, parts, done)
        for plan, pending in parts:
            self._finish(base_mapper, connection, plan, pending)

    def _save_table(
        self,
        base_mapper: Any,
        connection: Connection,
        inserts: list[Insert],
        levels: Levels | None,
    ) -> set[State]:
        """Insert the rows of one table: ours, or SQLAlchemy's where only it does right.

        Returns the objects whose rows SQLAlchemy inserted, and so saw to all that follows.
        """
        if not inserts:
            return set()
        names = inserts[0].names
        lacking = sum(len(insert.lacking()) for insert in inserts)
        resending = Resending(base_mapper, self.uow, connection, inserts[0].plan.table, levels)
        # Where SQLAlchemy looks at results in between, an error says how far it came.
        is_cut = not _is_sent_at_once(inserts) if levels is None else levels.is_cut
        facts, fragile = seen_of(connection, inserts, levels, is_cut=is_cut)
        in_turns = levels is not None and is_cut
        try:
            refuse_before_keys(connection, facts, fragile=fragile)
            if levels is not None:
                levels.hand_on(inserts[0].batch)
            refuse_given(inserts, connection.dialect, in_turns=in_turns)
            refuse_rows(inserts, facts)
            self._draw(connection, inserts, facts, always=fragile)
        except FastPathUnsupportedError:
            # Where sorting says nothing, only a statement a row tells whose key comes back.
            singly = lacking > 1 and not come_sorted(connection, inserts[0].plan, names, facts)
            return resending.run(inserts, singly=singly)
        in_order = facts is not None and (facts.in_order or bool(facts.own_keys))
        done: set[State] = set()
        try:
            if in_order:
                inserts = _one_after_another(inserts)
            self._prepare(connection, inserts, facts)
            self._send(inserts, resending, in_order=in_order, fragile=fragile)
        except (FastPathUnsupportedError, NotSentError):
            # What SQLAlchemy makes of such a value, be it an error, concerns one row alone.
            done = resending.run(inserts)
        for insert in inserts:
            insert.write_back()
        return done

    def _send(
        self, inserts: list[Insert], resending: Resending, *, in_order: bool, fragile: bool
    ) -> None:
        """Send all rows; raise NotSentError where SQLAlchemy has to send those not written."""
        savepoint = Savepoint(resending.connection) if fragile else None
        try:
            for insert in inserts:
                insert.send(in_order=in_order, statement_bytes=self.statement_bytes)
        except DBAPIError as error:
            if savepoint is None or not is_of_rows(error):
                resending.tell_written(inserts)
                raise
        else:
            if savepoint is not None:
                savepoint.keep()
            return
        savepoint.roll_back()
        for insert in inserts:
            insert.forget_sent()
        raise NotSentError

    def _prepare(
        self, connection: Connection, inserts: list[Insert], facts: TableFacts | None
    ) -> None:
        """Call defaults and bind processors; refuse what must not go in one statement."""
        tables = [(insert.pending, insert.batch) for insert in inserts]
        known = {column for insert in inserts for column in insert.batch.bound}
        try:
            with gc_paused(sum(insert.batch.count for insert in inserts)):
                call_defaults(tables)
                for insert in inserts:
                    refuse_long(insert.batch, connection.dialect.driver)
                bind_once(tables, connection.dialect)
        except FastPathUnsupportedError:
            raise
        except Exception as error:
            as_statement_error(connection, error, f"INSERT INTO {inserts[0].plan.table.name}")
        refuse_rows(inserts, facts, known)

    def understood(
        self, base_mapper: Mapper[Any], states: Sequence[State]
    ) -> tuple[Connection, list[MapperBatch]]:
        """Return the objects by mapper with the mappers' plans, or refuse."""
        connection = self.connection_of(base_mapper)
        by_mapper: dict[Mapper[Any], Pending] = {}
        mappers = {state.manager.mapper for state in states}
        if len(mappers) == 1:
            by_mapper[mappers.pop()] = Pending(list(states), [state.dict for state in states])
        else:
            for state in states:
                pending = by_mapper.setdefault(state.manager.mapper, Pending([], []))
                pending.states.append(state)
                pending.dicts.append(state.dict)
        return connection, [
            (self._plan(mapper, connection, pending), pending)
            for mapper, pending in by_mapper.items()
        ]

    def connection_of(self, base_mapper: Mapper[Any]) -> Connection:
        """Return the connection of a hierarchy, or refuse one that others have a hand in."""
        if self.connection is not None:
            return self.connection
        if self.session.connection_callable is not None:
            raise FastPathUnsupportedError("the session chooses a connection for each object")
        connection = self.uow.transaction.connection(base_mapper)
        _refuse_connection(connection)
        if has_one_bind(self.session):
            self.connection = connection
        return connection

    def want_connection(self, mapper: Mapper[Any]) -> None:
        """Ask for what SQLAlchemy wants before it carries a key: a savepoint may be refused."""
        if self.connection is None and self.session.connection_callable is None:
            self.uow.transaction.connection(mapper)

    def _plan(self, mapper: Any, connection: Connection, pending: Pending) -> MapperPlan:
        plan = mapper_plan(mapper, connection.dialect)
        reason = plan.reason or listens(mapper)
        if reason:
            raise FastPathUnsupportedError(reason)
        if mapper._validate_polymorphic_identity:
            for state, values in zip(pending.states, pending.dicts, strict=True):
                mapper._validate_polymorphic_identity(mapper, state, values)
        if any(map(_EXPIRED, pending.states)):
            raise FastPathUnsupportedError("an object that is no row has attributes to be loaded")
        self.refuse_known(plan, pending.states)
        return plan

    def refuse_known(self, plan: MapperPlan, states: Sequence[State]) -> None:
        """Refuse objects with the identity of another: SQLAlchemy updates or warns."""
        known = self.session.identity_map
        if not len(known):
            return
        mapper: Any = plan.mapper
        keys, identity_class = plan.identity_keys, mapper._identity_class
        for state in states:
            values = state.dict
            key = tuple([values.get(name) for name in keys])
            if (identity_class, key, state.identity_token) in known:
                raise FastPathUnsupportedError("an object has the identity of another")

    def wanted(self, base_mapper: Mapper[Any], states: Sequence[State]) -> Wanted | None:
        """Return the keys that objects need to be asked for, if that is plain beforehand."""
        connection, parts = self.understood(base_mapper, states)
        if len(parts) != 1 or len(parts[0][0].tables) != 1:
            return None
        (insert,) = self.inserts(connection, base_mapper, parts, states)
        rows = insert.lacking()
        if not rows or not must_ask(insert.plan, len(rows)):
            return None
        is_cut = not _is_sent_at_once([insert])
        facts, fragile = seen_of(connection, [insert], None, is_cut=is_cut)
        refuse_before_keys(connection, facts, fragile=fragile)
        refuse_given([insert], connection.dialect, in_turns=False)
        return Wanted(insert.plan, len(rows), connection, insert.names)

    def inserts(
        self,
        connection: Connection,
        base_mapper: Any,
        parts: list[MapperBatch],
        states: Sequence[State],
    ) -> list[Insert]:
        """Return what goes into the first table of a hierarchy."""
        return inserts_of(connection, next(iter(base_mapper._sorted_tables)), parts, states)

    def _refuse_values(self, connection: Connection, parts: list[MapperBatch]) -> None:
        """Look at the values of all tables before the first of them is written."""
        for plan, pending in parts:
            for number, table_plan in enumerate(plan.tables.values()):
                batch = collect(table_plan, pending.dicts, Names.of(connection))
                if number and batch.computed and table_plan.keys[0] in batch.absent:
                    raise FastPathUnsupportedError("a SQL expression beside inherited tables")

    def _draw(
        self,
        connection: Connection,
        inserts: list[Insert],
        facts: TableFacts | None,
        *,
        always: bool,
    ) -> None:
        """Ask for the keys that the inserts themselves cannot give, in the objects' order."""
        lacking = [(insert, rows) for insert in inserts if (rows := insert.lacking())]
        if not lacking:
            return
        alone = len(lacking) == 1
        first, rows = lacking[0]
        total = sum(len(rows) for _, rows in lacking)
        come_back = alone and not always and not must_ask(first.plan, total)
        if come_back and (total == 1 or self._sortable(first, facts)):
            return
        keys = self.ahead.pop(first.plan.table, [])
        if len(keys) != total:
            want = Wanted(first.plan, total, connection, first.names)
            keys = draw([want], self.reserve)[0]
        if alone:
            first.fill(rows, keys)
            return
        turns = sorted(
            (insert.pending.states[row].insert_order, number, row)
            for number, (insert, rows) in enumerate(lacking)
            for row in rows
        )
        shares: list[tuple[list[int], list[Any]]] = [([], []) for _ in lacking]
        for (_, number, row), key in zip(turns, keys, strict=True):
            shares[number][0].append(row)
            shares[number][1].append(key)
        for (insert, _), share in zip(lacking, shares, strict=True):
            insert.fill(*share)

    def _sortable(self, insert: Insert, facts: TableFacts | None) -> bool:
        """Tell whether one statement makes all keys, and sorting them tells whose they are."""
        sorted_keys = facts is not None and facts.keys_come_sorted
        return sorted_keys and insert.has_array() and insert.is_one_statement()

    def _finish(
        self,
        base_mapper: Mapper[Any],
        connection: Connection,
        plan: MapperPlan,
        pending: Pending,
    ) -> None:
        if plan.needs_finalize:
            rows = (
                (state, values, plan.mapper, connection, False)
                for state, values in zip(pending.states, pending.dicts, strict=True)
            )
            finalize_insert_update(base_mapper, self.uow, rows)
        known = self.inserted.get(plan.mapper)
        if known is None:
            self.inserted[plan.mapper] = pending
        else:
            known.extend(pending)


def _is_sent_at_once(inserts: Sequence[Insert]) -> bool:
    return len(inserts) == 1 and inserts[0].is_sent_at_once()


def _one_after_another(inserts: list[Insert]) -> list[Insert]:
    """Order what goes into one table by when it was added; refuse what was added in turns."""
    if len(inserts) == 1:
        return inserts
    spans = []
    for insert in inserts:
        orders = [state.insert_order for state in insert.pending.states]
        spans.append((min(orders), max(orders), insert))
    spans.sort(key=lambda span: span[:2])
    if any(this[1] > following[0] for this, following in pairwise(spans)):
        raise FastPathUnsupportedError(
            "rows of several mappers that the server counts came in turns"
        )
    return [insert for *_, insert in spans]


def as_statement_error(connection: Any, error: Exception, sql: str) -> None:
    """Raise what SQLAlchemy raises for an error while parameters are prepared."""
    connection._handle_dbapi_exception(error, sql, None, None, None)


def _refuse_connection(connection: Any) -> None:
    if is_autocommit(connection):
        raise FastPathUnsupportedError(
            "each statement of an AUTOCOMMIT connection is kept by itself"
        )
    if "compiled_cache" in connection._execution_options:
        raise FastPathUnsupportedError("the connection has a compiled_cache of its own")
    if connection._has_events or connection.engine._has_events:
        dispatch = connection.dispatch
        if dispatch.before_execute or dispatch.after_execute:
            raise FastPathUnsupportedError("somebody listens to before_execute or after_execute")

"""
Rows that SQLAlchemy inserts after all: those that a batch may not carry, and those that it failed
with.

SQLAlchemy sends neighbours that name the same columns, and writes back what came of them before
it sends the next. So after an error some objects have their keys and defaults and others do not,
and which error it is depends on which rows had gone before. Where a table may refuse rows, and
SQLAlchemy would send them in several statements, a batch goes behind a savepoint: if it fails, its
rows go again as SQLAlchemy alone would have sent them, with the keys and defaults that they have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from sqlalchemy import Table
from sqlalchemy.engine import Connection, RootTransaction
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Mapper
from sqlalchemy.orm.exc import FlushError

from ._sqlalchemy import UOWTransaction, collect_insert_commands, emit_insert_statements
from .execute import execute
from .insert import Insert, rows_missing
from .plans import ColumnPlan, FastPathUnsupportedError, Role
from .rows import RowBatch

Command = tuple[Any, ...]
Made = dict[Any, list[tuple[ColumnPlan, Any]]]  # what an object has of keys and defaults
SavedState = tuple[
    Any, dict[str, Any], dict[str, Any], set[str]
]  # a state and copies of what it has
_NAME = "async_loader_batch"
# Of values, of constraints, of names and types, raised by a function. What is left, such as a
# deadlock or a timeout, says nothing of the rows.
_OF_ROWS = ("22", "23", "42", "P0")


# A server keeps 64 of a transaction's savepoints in memory; some are left for the application.
_MOST_OPEN = 16
_open: WeakKeyDictionary[RootTransaction, int] = WeakKeyDictionary()


class Savepoint:
    """A point in a transaction that a batch can be rolled back to."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        execute(connection, f"SAVEPOINT {_NAME}", ())

    def keep(self) -> None:
        """Keep what was done; the first few stay open, which saves a round trip."""
        transaction = self.connection.get_transaction()
        count = _MOST_OPEN if transaction is None else _open.get(transaction, 0)
        if transaction is not None and count < _MOST_OPEN:
            _open[transaction] = count + 1
        else:
            self._release()

    def roll_back(self) -> None:
        """Undo what was done."""
        execute(self.connection, f"ROLLBACK TO SAVEPOINT {_NAME}", ())
        self._release()

    def _release(self) -> None:
        execute(self.connection, f"RELEASE SAVEPOINT {_NAME}", ())


def is_of_rows(error: DBAPIError) -> bool:
    """Tell whether the server refused a statement because of its rows."""
    code = str(getattr(error.orig, "sqlstate", None) or "")
    return not error.connection_invalidated and code.startswith(_OF_ROWS)


def refuse_to_try(connection: Any, *, counted: bool) -> None:
    """Refuse to go behind a savepoint where somebody hears of errors: of those twice.

    Nor may rows be sent twice that a default of the server counts.
    """
    if counted:
        raise FastPathUnsupportedError("the server numbers its rows")
    if connection.dialect.dispatch.handle_error:
        raise FastPathUnsupportedError("somebody listens to handle_error")


class Levels(Protocol):
    """Objects that SQLAlchemy inserts level by level, each once the one above has its keys."""

    @property
    def is_cut(self) -> bool:
        """Tell whether there are several levels."""

    @property
    def brings_values(self) -> bool:
        """Tell whether there are keys, references or numbers that may be refused."""

    def hand_on(self, batch: RowBatch, /) -> None:
        """Give a batch what was bound when its values were looked at, of those that still are."""

    def resend(self, resending: Resending, inserts: Sequence[Insert], /) -> None:
        """Insert them as SQLAlchemy does."""


class Resending:
    """The rows of one table that are not written, in the statements of SQLAlchemy."""

    def __init__(
        self,
        base_mapper: Any,
        uow: UOWTransaction,
        connection: Connection,
        table: Table,
        levels: Levels | None,
    ) -> None:
        self.base_mapper = base_mapper
        self.uow = uow
        self.connection = connection
        self.table = table
        self.levels = levels
        self.mapper: Mapper[Any] = base_mapper._sorted_tables[table]

    def run(self, inserts: Sequence[Insert], *, singly: bool = False) -> set[Any]:
        """Insert what is not written, and return of which objects.

        After an error objects are as SQLAlchemy leaves them.
        """
        made = self.made(inserts)
        if any(insert.written for insert in inserts):
            self._send_between(inserts, made)
            return set(made)
        rows = _in_order(inserts)
        if singly:
            for batch in list(self._batches(rows)):
                self._emit_singly(batch, inserts)
        elif self.levels is not None:
            self.levels.resend(self, inserts)
        else:
            self.send(rows, made)
        return set(made)

    def tell_written(self, inserts: Sequence[Insert]) -> None:
        """Leave objects as SQLAlchemy does after an error of the first row that is not written."""
        if self.levels is None and any(insert.written for insert in inserts):
            later = _written(inserts)
            for batch in self._batches(_in_order(inserts)):
                if not all(state in later for state in batch):
                    break
                restore(later[state] for state in batch)

    def _send_between(self, inserts: Sequence[Insert], made: Made) -> None:
        """Insert what is not written; what is, is told of in its turn, or not at all."""
        later = _written(inserts)
        for batch in list(self._batches(_in_order(inserts))):
            restore(later[state] for state in batch if state in later)
            rest = [state for state in batch if state not in later]
            if rest:
                self._emit(rest, made)

    def made(self, inserts: Sequence[Insert]) -> Made:
        """Return the objects that are not written, with the keys and defaults they have."""
        return {
            state: given
            for insert in inserts
            for row, (state, given) in enumerate(
                zip(insert.pending.states, insert.made(), strict=True)
            )
            if row not in insert.written
        }

    def send(self, states: Sequence[Any], made: Made) -> None:
        """Insert objects in SQLAlchemy's statements, with what was made for them already."""
        if not any(made[state] for state in states):
            self._emit_all(self._commands(states))
            return
        for batch in list(self._batches(states)):
            self._emit(batch, made)

    def _emit_all(self, commands: Iterable[Command]) -> None:
        emit_insert_statements(self.base_mapper, self.uow, self.mapper, self.table, commands)

    def _emit_singly(self, states: Sequence[Any], inserts: Sequence[Insert]) -> None:
        """Send the rows of one statement one by one; after an error none of them came to be.

        Of one statement SQLAlchemy calls all defaults before the first type is asked.
        """
        before = list(map(held, states))
        try:
            commands = list(self._commands(states))
            called = _call_defaults(inserts, states) if len(states) > 1 else {}
            self._emit_one_by_one(_given(commands, called))
        except BaseException:
            restore(before)
            raise

    def _emit_one_by_one(self, commands: Sequence[Command]) -> None:
        missing: FlushError | None = None
        for command in commands:
            try:
                self._emit_all([command])
            except FlushError as error:  # no row came back: a later one may be refused
                missing = error
        if missing is not None:
            raise rows_missing(self.mapper, len(commands)) from missing

    def _commands(self, states: Sequence[Any]) -> Iterator[Command]:
        rows = [(state, state.dict, state.manager.mapper, self.connection) for state in states]
        commands: Iterator[Command] = collect_insert_commands(self.table, rows)
        return commands

    def _batches(self, states: Sequence[Any]) -> Iterator[list[Any]]:
        """Yield the states whose rows SQLAlchemy sends before it looks at a result."""
        for key, run in groupby(self._commands(states), _key):
            same = [command[0] for command in run]
            if self._is_batched(key):
                yield same
            else:
                yield from ([state] for state in same)

    def _is_batched(self, key: tuple[Any, ...]) -> bool:
        _, has_expressions, has_keys, has_defaults = key
        dialect: Any = self.connection.dialect
        eager = self.base_mapper._prefer_eager_defaults(dialect, self.table)
        if has_keys and not has_expressions and (has_defaults or not eager):
            return True
        by_order = dialect.insert_executemany_returning_sort_by_parameter_order
        return not has_expressions and by_order

    def _emit(self, states: list[Any], made: Made) -> None:
        """Send the rows in SQLAlchemy's own statement, as if it had called the defaults itself."""
        before = list(map(held, states))
        called = {
            state: [(one, value) for one, value in made[state] if one.role is Role.DEFAULT]
            for state in states
        }
        try:
            for state in states:
                for column, value in made[state]:
                    if column.role is not Role.DEFAULT:
                        state.dict[column.key] = value
            self._emit_all(_given(self._commands(states), called))
        except BaseException:
            restore(before)
            raise


def _given(commands: Iterable[Command], called: Made) -> list[Command]:
    """Return inserts with the values of defaults that were called; objects get them, too.

    SQLAlchemy copies a key to the tables below as soon as its row is in: from the object.
    """
    given = list(commands)
    for command in given:
        state, params = command[0], command[2]
        for column, value in called.get(state, ()):
            params[column.column.key] = value
            if column.key is not None:
                state.dict[column.key] = value
                state.committed_state.pop(column.key, None)
    return given


def _call_defaults(inserts: Sequence[Insert], states: Sequence[Any]) -> Made:
    """Call the defaults of some objects, one after the other, and return the values."""
    wanted: dict[Any, list[ColumnPlan]] = {state: [] for state in states}
    for insert in inserts:
        for default in insert.batch.defaults:
            if default.column.default is not None and default.column.is_callable:
                for row in default.rows:
                    state = insert.pending.states[row]
                    if state in wanted:
                        wanted[state].append(default.column)
    return {
        state: [(column, column.default()) for column in columns if column.default]
        for state, columns in wanted.items()
    }


def _in_order(inserts: Sequence[Insert]) -> list[Any]:
    """Return the objects of all inserts as SQLAlchemy comes to them."""
    states = [state for insert in inserts for state in insert.pending.states]
    return states if len(inserts) == 1 else sorted(states, key=lambda state: state.insert_order)


def _written(inserts: Sequence[Insert]) -> dict[Any, SavedState]:
    """Return the objects whose rows are written, as they shall be; leave them as they were."""
    states = [insert.pending.states[row] for insert in inserts for row in insert.written]
    before = list(map(held, states))
    for insert in inserts:
        insert.write_back()
    later = {state: held(state) for state in states}
    restore(before)
    return later


def held(state: Any) -> SavedState:
    """Return a state with copies of its attributes, for `restore`."""
    return state, state.dict.copy(), state.committed_state.copy(), set(state.expired_attributes)


def restore(before: Iterable[SavedState]) -> None:
    """Give states their attributes of before, which the objects' own dictionaries hold."""
    for state, attributes, committed, expired in before:
        state.dict.clear()
        state.dict.update(attributes)
        state.committed_state = committed
        state.expired_attributes.clear()
        state.expired_attributes.update(expired)


def _key(command: Command) -> tuple[Any, ...]:
    """What SQLAlchemy groups neighbours by."""
    return frozenset(command[2]), bool(command[5]), command[6], command[7]

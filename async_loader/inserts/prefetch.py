"""
The middle way: keys asked for beforehand and objects regrouped, the inserts SQLAlchemy's own.

For mappers with a column that only SQLAlchemy can send. SQLAlchemy batches neighbours whose
inserts name the same columns, and inserts one row at a time where the server makes the key; with
keys in place and like beside like, its own batches are as large as they can be.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from sqlalchemy.engine import Connection
from sqlalchemy.orm import Mapper

from ._sqlalchemy import collect_insert_commands, emit_insert_statements, finalize_insert_update
from .catalogue import TableFacts, facts_of
from .column_types import is_text_to
from .keys import Wanted, draw
from .names import Names
from .plans import FastPathUnsupportedError, KeySource, Level, Role, TablePlan, listens, mapper_plan
from .resending import held, restore
from .save import Save

State = Any
Command = tuple[Any, ...]

_MISSING: Any = object()


def insert_regrouped(save: Save, base_mapper: Any, states: Sequence[State]) -> None:
    """Insert pending objects of one mapper with one table, in the order they were added.

    Raises FastPathUnsupportedError, having done nothing, when that gains nothing or is not safe.
    """
    connection = save.connection_of(base_mapper)
    mapper, plan = _plan(save, connection, states)
    names = Names.of(connection)
    facts = facts_of(connection, plan, names)
    if facts is None or facts.shows is not None or facts.in_order:
        raise FastPathUnsupportedError("how its rows come can be seen")
    commands = _commands(mapper, plan, connection, states)
    lacking = [command for command in commands if not command[6]]
    regrouped = _regroup(commands)
    _refuse_another_order(plan, commands)
    fragile = facts.refuses or _has_nulls(plan, facts, states) or _brings_keys(plan, states)
    if fragile and _runs(commands) > 1:
        raise FastPathUnsupportedError("an error would tell how far SQLAlchemy came")
    needs_no_keys = not lacking or (plan.key_source is KeySource.COUNTER and len(regrouped) == 1)
    if needs_no_keys and len(regrouped) == _runs(commands):
        raise FastPathUnsupportedError("SQLAlchemy's own batches are as large")
    before = list(map(held, states))
    _give_keys(plan, connection, names, lacking, save.reserve)
    try:
        _call_defaults(plan, states)
        for group in _regroup(_commands(mapper, plan, connection, states)):
            emit_insert_statements(base_mapper, save.uow, mapper, plan.table, group)
    except BaseException:
        restore(before)
        raise
    finalize_insert_update(
        base_mapper,
        save.uow,
        ((state, state.dict, mapper, connection, False) for state in states),
    )


def _plan(
    save: Save, connection: Connection, states: Sequence[State]
) -> tuple[Mapper[Any], TablePlan]:
    mappers = {state.manager.mapper for state in states}
    if len(mappers) > 1 or len(states) < 2:
        raise FastPathUnsupportedError("several mappers, or a single object")
    mapper = mappers.pop()
    plan = mapper_plan(mapper, connection.dialect)
    if plan.level is not Level.PREFETCH or len(plan.tables) != 1:
        raise FastPathUnsupportedError(plan.reason or "nothing to prefetch")
    reason = listens(mapper)
    if reason:
        raise FastPathUnsupportedError(reason)
    (table,) = plan.tables.values()
    if table.refers_to_itself:
        raise FastPathUnsupportedError("its rows refer to each other")
    if any(is_text_to(column.column.type, connection.dialect) for column in table.columns):
        raise FastPathUnsupportedError("SQLAlchemy sends several rows with a domain as text")
    save.refuse_known(plan, states)
    return mapper, table


def _commands(
    mapper: Mapper[Any], plan: TablePlan, connection: Connection, states: Sequence[State]
) -> list[Command]:
    rows = [(state, state.dict, mapper, connection) for state in states]
    return list(collect_insert_commands(plan.table, rows))


def _key(command: Command) -> tuple[Any, ...]:
    """What SQLAlchemy groups neighbours by."""
    return frozenset(command[2]), bool(command[5]), command[6], command[7]


def _regroup(commands: Sequence[Command]) -> list[list[Command]]:
    groups: dict[Any, list[Command]] = {}
    for command in commands:
        groups.setdefault(_key(command), []).append(command)
    return list(groups.values())


def _runs(commands: Sequence[Command]) -> int:
    keys = [_key(command) for command in commands]
    return 1 + sum(one != other for one, other in pairwise(keys))


def _has_nulls(plan: TablePlan, facts: TableFacts, states: Sequence[State]) -> bool:
    """Tell whether the table refuses a row for what it lacks."""
    needed = [
        str(column.key)
        for column in plan.columns
        if column.column.name in facts.not_null
        and column.role in {Role.NONE, Role.ABSENT}
        and column is not plan.generated
    ]
    return any(state.dict.get(key) is None for key in needed for state in states)


def _brings_keys(plan: TablePlan, states: Sequence[State]) -> bool:
    """Tell whether an object has a key of its own, which may be another's."""
    keys = [column.key for column in plan.keys]
    return any(state.dict.get(key) is not None for key in keys for state in states)


def _refuse_another_order(plan: TablePlan, commands: Sequence[Command]) -> None:
    """Refuse to regroup where code of the application's own would be called in another order."""
    key = None if plan.generated is None else plan.generated.column.key
    kinds = {(frozenset(set(command[2]) - {key}), bool(command[5])) for command in commands}
    for column in plan.columns:
        by_context = column.is_callable and column.default is None
        if len(kinds) > 1 and (column.foreign or by_context):
            raise FastPathUnsupportedError("its own code would be called in another order")


def _call_defaults(plan: TablePlan, states: Sequence[State]) -> None:
    """Call defaults in the order of the objects, which regrouped they would not be."""
    columns = [
        column
        for column in plan.columns
        if column.role is Role.DEFAULT and column.is_callable and column.key is not None
    ]
    for state in states:
        attributes = state.dict
        for column in columns:
            absent = _MISSING if column.evaluates_none else None
            if attributes.get(column.key, absent) is absent:
                attributes[str(column.key)] = column.default() if column.default else None
                state.committed_state.pop(column.key, None)  # as after one of SQLAlchemy's calls


def _give_keys(
    plan: TablePlan,
    connection: Connection,
    names: Names,
    lacking: Sequence[Command],
    reserve: int,
) -> None:
    if not lacking:
        return
    generated = plan.generated
    if generated is None or generated.key is None or len(plan.keys) != 1:
        raise FastPathUnsupportedError("nothing makes its key")
    (raw,) = draw([Wanted(plan, len(lacking), connection, names)], reserve)
    process: Any = generated.column.type._cached_result_processor(connection.dialect, None)
    for command, value in zip(lacking, raw, strict=True):
        command[1][generated.key] = value if process is None else process(value)

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

from async_loader.inserts._sqlalchemy import (
    collect_insert_commands,
    emit_insert_statements,
    finalize_insert_update,
)
from async_loader.inserts.keys import Wanted, draw
from async_loader.inserts.plans import (
    KeySource,
    Level,
    NotUnderstoodError,
    TablePlan,
    listens,
    mapper_plan,
)
from async_loader.inserts.save import Save

State = Any
Command = tuple[Any, ...]


def insert_regrouped(save: Save, base_mapper: Any, states: Sequence[State]) -> None:
    """Insert pending objects of one mapper with one table, in the order they were added.

    Raises NotUnderstoodError, having done nothing, when that gains nothing or is not safe.
    """
    connection = save.connection_of(base_mapper)
    mapper, plan = _plan(save, connection, states)
    commands = _commands(mapper, plan, connection, states)
    lacking = [command for command in commands if not command[6]]
    regrouped = _regroup(commands)
    needs_no_keys = not lacking or (plan.key_source is KeySource.COUNTER and len(regrouped) == 1)
    if needs_no_keys and len(regrouped) == _runs(commands):
        raise NotUnderstoodError("SQLAlchemy's own batches are as large")
    given = _give_keys(plan, connection, lacking, save.reserve)
    try:
        for group in _regroup(_commands(mapper, plan, connection, states)):
            emit_insert_statements(base_mapper, save.uow, mapper, plan.table, group)
    except BaseException:
        for attributes, key in given:
            attributes.pop(key, None)
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
        raise NotUnderstoodError("several mappers, or a single object")
    mapper = mappers.pop()
    plan = mapper_plan(mapper, connection.dialect)
    if plan.level is not Level.PREFETCH or len(plan.tables) != 1:
        raise NotUnderstoodError(plan.reason or "nothing to prefetch")
    reason = listens(mapper)
    if reason:
        raise NotUnderstoodError(reason)
    (table,) = plan.tables.values()
    if table.refers_to_itself:
        raise NotUnderstoodError("its rows refer to each other")
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


def _give_keys(
    plan: TablePlan, connection: Connection, lacking: Sequence[Command], reserve: int
) -> list[tuple[dict[str, Any], str]]:
    if not lacking:
        return []
    generated = plan.generated
    if generated is None or generated.key is None or len(plan.keys) != 1:
        raise NotUnderstoodError("nothing makes its key")
    translation = connection.get_execution_options().get("schema_translate_map")
    (raw,) = draw([Wanted(plan, len(lacking), connection, translation)], reserve)
    process: Any = generated.column.type._cached_result_processor(connection.dialect, None)
    given = []
    for command, value in zip(lacking, raw, strict=True):
        attributes = command[1]
        attributes[generated.key] = value if process is None else process(value)
        given.append((attributes, generated.key))
    return given

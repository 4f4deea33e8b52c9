"""What the server or the values say against batching the rows of a table: then it is refused."""

from __future__ import annotations

from collections.abc import Container, Sequence

from sqlalchemy.engine import Connection, Dialect

from .calls import bind_given, refuse_turns
from .catalogue import TableFacts, facts_of, later_in
from .insert import Insert
from .keys import must_ask
from .plans import ColumnPlan, FastPathUnsupportedError
from .resending import Levels, refuse_to_try
from .sizes import refuse_long


def refuse_table(insert: Insert) -> TableFacts:
    """Return what the server says; refuse a table that is not there, or shows how its rows came."""
    facts = facts_of(insert.connection, insert.plan, insert.names)
    if facts is None:
        raise FastPathUnsupportedError(f"{insert.plan.table.name} is not there")
    _refuse_what_shows(facts)
    return facts


def seen_of(
    connection: Connection, inserts: list[Insert], levels: Levels | None, *, is_cut: bool
) -> tuple[TableFacts | None, bool]:
    """Return what the server says of a table, and whether a refused row has to be looked for."""
    if sum(insert.batch.count for insert in inserts) < 2:
        asked = any(must_ask(insert.plan, len(insert.lacking())) for insert in inserts)
        if not asked:  # how one row came shows nowhere
            return None, False
    facts = facts_of(connection, inserts[0].plan, inserts[0].names)
    return facts, facts is not None and _may_be_refused(facts, inserts, levels, is_cut=is_cut)


def refuse_before_keys(connection: Connection, facts: TableFacts | None, *, fragile: bool) -> None:
    """Refuse what can be told before keys are drawn: those of a table that is left are lost."""
    _refuse_what_shows(facts)
    if facts is not None and fragile:
        refuse_to_try(connection, counted=facts.in_order)


def _refuse_what_shows(facts: TableFacts | None) -> None:
    if facts is not None and facts.shows is not None:
        raise FastPathUnsupportedError(facts.shows)


def _may_be_refused(
    facts: TableFacts, inserts: list[Insert], levels: Levels | None, *, is_cut: bool
) -> bool:
    if levels is not None:
        return is_cut and (facts.refuses or levels.brings_values)
    # References to the own table are checked behind all rows of a statement, all else before.
    own = {name for key in facts.own_keys for name in key.columns}
    refers = bool(own) and any(i.gives(lambda one: one.column.name in own) for i in inserts)
    if not (is_cut or refers):
        return False
    if (is_cut and refers) or facts.refuses:
        return True
    return any(insert.may_be_refused() for insert in inserts)


def refuse_given(inserts: Sequence[Insert], dialect: Dialect, *, in_turns: bool) -> None:
    """Refuse what given values say against a batch, before keys are drawn and defaults called."""
    refuse_turns([(insert.pending, insert.batch) for insert in inserts], in_turns=in_turns)
    for insert in inserts:
        refuse_long(insert.batch, dialect.driver)
        bind_given(insert.batch, insert.plan.generated, dialect)


def refuse_rows(
    inserts: Sequence[Insert], facts: TableFacts | None, known: Container[ColumnPlan] = ()
) -> None:
    """Refuse rows that the table refuses, by the values that are bound; `known` are looked at.

    SQLAlchemy gets the error of the first row.
    """
    if facts is not None:
        for insert in inserts:
            _refuse_nulls(insert, facts, known)
            refuse_later(insert, facts)


def _refuse_nulls(insert: Insert, facts: TableFacts, known: Container[ColumnPlan]) -> None:
    for column, _, rows in insert.batch.value_columns():
        values = insert.batch.bound.get(column)
        if values is None or column in known:
            continue
        name = column.column.name
        if name in facts.never_given:
            raise FastPathUnsupportedError(f"{facts.table}.{name} is the server's")
        if name not in facts.not_null:
            continue
        if None in (values if len(rows) == len(values) else [values[row] for row in rows]):
            raise FastPathUnsupportedError(f"{facts.table}.{name} is given None")


def refuse_later(insert: Insert, facts: TableFacts) -> None:
    """Refuse rows that refer to later ones of their table: one by one they are refused, too."""
    values = {column.column.name: given for column, given, _ in insert.batch.value_columns()}
    for key in facts.own_keys:
        if not (values.keys() >= {*key.columns, *key.referred}):
            continue
        rows = list(zip(*(values[name] for name in key.columns), strict=True))
        referred = list(zip(*(values[name] for name in key.referred), strict=True))
        if later_in(rows, referred):
            raise FastPathUnsupportedError(f"{facts.table} has rows that refer to later ones")

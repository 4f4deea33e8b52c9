"""What the server or the values say against batching the rows of a table: then it is refused."""

from __future__ import annotations

from sqlalchemy.engine import Connection

from .catalogue import TableFacts, facts_of, later_in
from .insert import Insert
from .plans import FastPathUnsupportedError
from .resending import Levels, refuse_to_try


def refuse_table(insert: Insert) -> None:
    """Refuse a table that is not there, or shows how its rows came."""
    facts = facts_of(insert.connection, insert.plan, insert.names)
    if facts is None:
        raise FastPathUnsupportedError(f"{insert.plan.table.name} is not there")
    _refuse_what_shows(facts)


def seen_of(
    connection: Connection, inserts: list[Insert], levels: Levels | None, *, is_cut: bool
) -> tuple[TableFacts | None, bool]:
    """Return what the server says of a table, and whether a refused row has to be looked for."""
    if sum(insert.batch.count for insert in inserts) < 2:  # how one row came shows nowhere
        return None, False
    facts = facts_of(connection, inserts[0].plan, inserts[0].names)
    return facts, facts is not None and is_cut and _may_be_refused(facts, inserts, levels)


def refuse_before_keys(connection: Connection, facts: TableFacts | None, *, fragile: bool) -> None:
    """Refuse what can be told before keys are drawn: those of a table that is left are lost."""
    _refuse_what_shows(facts)
    if facts is not None and fragile:
        refuse_to_try(connection, counted=facts.in_order)


def _refuse_what_shows(facts: TableFacts | None) -> None:
    if facts is not None and facts.shows is not None:
        raise FastPathUnsupportedError(facts.shows)


def _may_be_refused(facts: TableFacts, inserts: list[Insert], levels: Levels | None) -> bool:
    if levels is not None:
        return facts.refuses or levels.brings_values
    return facts.refuses or any(insert.may_be_refused() for insert in inserts)


def refuse_nulls(insert: Insert, facts: TableFacts) -> None:
    """Refuse what the table refuses: SQLAlchemy gets the error of the first row."""
    for column, _, rows in insert.batch.value_columns():
        if column.column.name in facts.never_given:
            raise FastPathUnsupportedError(f"{facts.table}.{column.column.name} is the server's")
        if column.column.name in facts.not_null:
            values = insert.batch.bound[column]
            if None in (values if len(rows) == len(values) else [values[row] for row in rows]):
                raise FastPathUnsupportedError(f"{facts.table}.{column.column.name} is given None")


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

"""Which SQL expressions are understood, and what they are compiled to."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Integer, String, cast, func, literal, literal_column, null, select, text
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

from async_loader.inserts.expressions import understood
from async_loader.inserts.names import Names

DIALECT: Any = PGDialect_asyncpg()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it so
NAMES = Names(DIALECT, None)


@pytest.mark.parametrize(
    ("expression", "sql", "values"),
    [
        (func.now(), "now()", ()),
        (func.lower("A"), "lower({0})", ("A",)),
        (literal("a") + literal("b"), "({0} || {1})", ("a", "b")),
        (cast(literal(1) + 2, String), "CAST({0} + {1} AS VARCHAR)", (1, 2)),
        (null(), "NULL", ()),
    ],
    ids=str,
)
def test_understood(expression: Any, sql: str, values: tuple[Any, ...]) -> None:
    found = understood(expression, NAMES)
    assert found is not None
    assert found.template.sql == sql
    assert found.values == values


def test_expressions_that_differ_in_values_share_a_template() -> None:
    one, other = understood(func.lower("a"), NAMES), understood(func.lower("b"), NAMES)
    assert one is not None
    assert other is not None
    assert one.template == other.template


@pytest.mark.parametrize(
    "expression",
    [
        select(literal(1)).scalar_subquery(),
        func.coalesce(select(func.max(literal(1))).scalar_subquery(), 1),
        func.own_function(),
        func.public.lower("a"),
        func.nextval("a"),
        func.count(),
        text("now()"),
        literal_column("now()"),
        literal([1], type_=Integer).in_([1, 2]),
        literal("a"),
        func.clock_timestamp(),
    ],
    ids=str,
)
def test_left_to_sqlalchemy(expression: Any) -> None:
    assert understood(expression, NAMES) is None

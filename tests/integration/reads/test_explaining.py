"""`explain` says which way each thing of a statement goes, as it then goes."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import create_engine, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, aliased, joinedload, selectinload

from async_loader import enable_fast_paths
from async_loader.reads import explain
from tests.integration.reads.conftest import engine_of, statements_of
from tests.integration.reads.models import (
    Deep,
    Half,
    Kid,
    Node,
    Pair,
    Parent,
)

pytestmark = pytest.mark.usefixtures("filled")

parents = select(Parent)
PARENTS_KIDS = "selectin Parent.kids: kept, = ANY"
STATEMENTS: dict[str, tuple[Any, str]] = {
    "kept": (parents.options(selectinload(Parent.kids)), PARENTS_KIDS),
    "two levels": (
        parents.options(selectinload(Parent.kids).selectinload(Kid.toys)),
        f"{PARENTS_KIDS}\nselectin Kid.toys: kept, = ANY",
    ),
    "below a join": (
        parents.options(joinedload(Parent.kids).selectinload(Kid.toys)),
        "selectin Kid.toys: kept, = ANY",
    ),
    "by the mapper": (
        select(Deep),
        "selectin Deep.below: kept, = ANY",
    ),
    "secondary": (
        parents.options(selectinload(Parent.tags)),
        "selectin Parent.tags: stock: goes by a secondary table",
    ),
    "join": (
        parents.options(selectinload(Parent.joined)),
        "selectin Parent.joined: stock: its statement joins the parent",
    ),
    "alias": (
        parents.options(selectinload(Parent.kids.of_type(aliased(Kid)))),
        "selectin Parent.kids: stock: loads an alias",
    ),
    "depth": (
        select(Node).options(selectinload(Node.below, recursion_depth=2)),
        "selectin Node.below: stock: has a recursion_depth",
    ),
    "criteria": (
        parents.options(selectinload(Parent.kids.and_(Kid.x > 2))),
        "selectin Parent.kids: stock: has criteria in the option",
    ),
    "columns": (
        select(Pair).options(selectinload(Pair.halves)),
        "selectin Pair.halves: kept, IN: several columns",
    ),
    "columns back": (
        select(Half).options(selectinload(Half.pair)),
        "selectin Half.pair: kept, IN: several columns",
    ),
    "nothing": (parents, "nothing to be faster: no selectinload"),
    "insert": (insert(Parent), "nothing to be faster: not a SELECT of the ORM"),
    "text": (text("SELECT 1"), "nothing to be faster: not a SELECT of the ORM"),
}


@pytest.mark.parametrize("name", STATEMENTS)
async def test_it_goes_as_it_is_told(read_url: str, name: str) -> None:
    statement, told = STATEMENTS[name]
    assert explain(statement) == told
    engine = engine_of(read_url)
    enable_fast_paths(engine)
    async with AsyncSession(engine) as session:
        assert explain(statement, session) == told
        if statement.is_select and not isinstance(statement, type(text(""))):
            statements = statements_of(engine)
            (await session.scalars(statement)).unique().all()
            assert any("= ANY" in one for one in statements) == ("= ANY" in told)
    await engine.dispose()


async def test_as_a_session_has_it(read_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = parents.options(selectinload(Parent.kids))
    engine, psycopg = engine_of(read_url), engine_of(read_url, "psycopg_async")
    sqlite = create_engine("sqlite://")

    def told(session: Any) -> str:
        return explain(asked, session).removeprefix("selectin Parent.kids: ")

    assert told(AsyncSession(engine)) == "stock: fast paths are not on for this session"
    enable_fast_paths(engine, selectin=False)
    assert told(AsyncSession(engine)) == "stock: selectin is off for this session"
    for one in (engine, psycopg, sqlite):
        enable_fast_paths(one)
    assert told(AsyncSession(engine)) == told(AsyncSession(psycopg)) == "kept, = ANY"
    assert told(Session(sqlite)) == "kept, IN: sqlite through pysqlite"
    monkeypatch.setenv("ASYNC_LOADER_FAST_PATHS", "off")
    assert told(AsyncSession(engine)) == "stock: ASYNC_LOADER_FAST_PATHS=off"
    sqlite.dispose()


def test_of_a_model_it_is_that_of_inserts() -> None:
    assert "insert" in explain(Parent)

"""One statement against several databases: what is kept depends on none of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from sqlalchemy import Engine, ForeignKey, MetaData, create_engine, event, select
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.ext.horizontal_shard import ShardedSession
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    relationship,
    selectinload,
)
from sqlalchemy.pool import StaticPool
from sqlalchemy.schema import CreateSchema

from async_loader import enable_fast_paths
from tests.integration.reads.conftest import engine_of, statements_of


class Base(DeclarativeBase):
    metadata = MetaData(schema="per_tenant")


class Owner(Base):
    __tablename__ = "owner"
    id: Mapped[int] = mapped_column(primary_key=True)
    things: Mapped[list[Thing]] = relationship()


class Thing(Base):
    __tablename__ = "thing"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int] = mapped_column(ForeignKey(Owner.id))


class OwnSession(Session):
    """For which alone they are on."""


ASKED = select(Owner).options(selectinload(Owner.things))
TENANTS = {"one": 1, "two": 2, "three": 3, "paged": 2}


def _fill(engine: Engine, schema: str | None, things: int) -> None:
    there = engine.execution_options(schema_translate_map={"per_tenant": schema})
    with there.begin() as connection:
        if schema is not None:
            connection.execute(CreateSchema(schema))
        Base.metadata.create_all(connection)
    with Session(there) as session:
        session.add(Owner(id=1, things=[Thing() for _ in range(things)]))
        session.commit()


@pytest.fixture(scope="module")
def postgresql(read_url: str) -> Iterator[Engine]:
    engine = create_engine(make_url(read_url).set(drivername="postgresql+psycopg"))
    for schema, things in TENANTS.items():
        _fill(engine, schema, things)
    yield engine.execution_options(schema_translate_map={"per_tenant": "one"})
    engine.dispose()


@pytest.fixture(scope="module")
def sqlite() -> Iterator[Engine]:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    _fill(engine, None, 4)
    yield engine.execution_options(schema_translate_map={"per_tenant": None})
    engine.dispose()


def _things(session: Session) -> int:
    return len(session.scalars(ASKED).one().things)


@pytest.fixture
def on() -> None:
    enable_fast_paths(OwnSession)


@pytest.mark.usefixtures("on")
def test_children_bound_elsewhere(postgresql: Engine, sqlite: Engine) -> None:
    here: dict[Any, Any] = {Owner: postgresql, Thing: postgresql}
    there: dict[Any, Any] = {Owner: postgresql, Thing: sqlite}
    found = []
    for binds in (here, there, here, there):
        with OwnSession(binds=binds) as session:
            found += [_things(session)]
    assert found == [1, 4, 1, 4]


@pytest.mark.usefixtures("on")
def test_a_session_that_routes_is_asked_as_ever(postgresql: Engine) -> None:
    asked: list[list[tuple[Any, bool]]] = []

    class Routing(OwnSession):
        def get_bind(self, mapper: Any = None, *, clause: Any = None, **options: Any) -> Any:
            asked[-1].append((mapper and mapper.class_, clause is not None))
            return postgresql

    for fast in (False, True, True):
        enable_fast_paths(Routing, selectin=fast)
        asked.append([])
        with Routing() as session:
            assert _things(session) == 1
    assert asked[0] == asked[1] == asked[2]
    assert (Thing, True) in asked[0]


@pytest.mark.usefixtures("on")
def test_shards(postgresql: Engine, sqlite: Engine) -> None:
    class Sharded(ShardedSession, OwnSession):
        pass

    def both(*_: Any, **_options: Any) -> list[str]:
        return ["a", "b"]

    def sharded(first: str) -> Session:
        return Sharded(
            shards={"a": postgresql, "b": sqlite},
            shard_chooser=lambda mapper, instance, clause=None: first,
            identity_chooser=both,
            execute_chooser=lambda context: [first],
        )

    found = []
    for first in "abab":
        with sharded(first) as session:
            found += [_things(session)]
    assert found == [1, 4, 1, 4]


@pytest.mark.usefixtures("on")
def test_schemas_in_turns(postgresql: Engine) -> None:
    found = []
    for schema, by_engine in product(["one", "two", "one", "three"], [True, False]):
        options = {"schema_translate_map": {"per_tenant": schema}}
        engine = postgresql.execution_options(**options) if by_engine else postgresql
        with OwnSession(engine) as session:
            found += [len(session.scalars(ASKED, execution_options=options).one().things)]
    assert found == [1, 1, 2, 2, 1, 1, 3, 3]


@pytest.mark.usefixtures("on")
@pytest.mark.parametrize("shares_cache", [True, False])
def test_drivers_in_turns(
    postgresql: Engine, sqlite: Engine, read_url: str, shares_cache: bool
) -> None:
    """Each is told the keys as it takes them, also where they share what is compiled."""
    cache: Any = {"compiled_cache": {}} if shares_cache else {}
    texts: dict[str, str] = {}

    def see(connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        texts[connection.dialect.driver] = statement

    async def by_asyncpg() -> int:
        engine = engine_of(read_url)
        event.listen(engine.sync_engine, "before_cursor_execute", see)
        translated = {"schema_translate_map": {"per_tenant": "one"}}
        async with AsyncSession(
            engine.execution_options(**cache, **translated), sync_session_class=OwnSession
        ) as session:
            found = await session.run_sync(_things)
        await engine.dispose()
        return found

    for _ in range(2):
        for engine, things in ((postgresql, 1), (sqlite, 4)):
            event.listen(engine, "before_cursor_execute", see)
            with OwnSession(engine.execution_options(**cache)) as session:
                assert _things(session) == things
            event.remove(engine, "before_cursor_execute", see)
        assert asyncio.run(by_asyncpg()) == 1
    assert texts["asyncpg"].endswith("= ANY ($1::INTEGER[])")
    assert texts["psycopg"].endswith("= ANY (%(primary_keys)s::INTEGER[])")
    assert texts["pysqlite"].endswith("IN (?)")


@pytest.mark.usefixtures("on")
async def test_one_text_for_any_number_of_keys(read_url: str, postgresql: Engine) -> None:
    engine = engine_of(
        read_url, execution_options={"schema_translate_map": {"per_tenant": "paged"}}
    )
    with Session(postgresql.execution_options(schema_translate_map={"per_tenant": "paged"})) as one:
        one.add_all([Owner(id=2), Owner(id=3)])
        one.commit()
    statements = statements_of(engine)
    for page in (1, 2, 3):
        async with AsyncSession(engine, sync_session_class=OwnSession) as session:
            found = await session.scalars(ASKED.order_by(Owner.id).limit(page))
            assert [len(owner.things) for owner in found] == [2, 0, 0][:page]
    await engine.dispose()
    assert len({text for text in statements if "thing" in text}) == 1

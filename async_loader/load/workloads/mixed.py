"""
Parents with children over an indexed foreign key: one operation writes, one reads.

`create` adds three parents with 2, 1 and 2 children in one transaction. `read` loads a page
of ten parents with their children and walks them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Literal

from sqlalchemy import (
    Double,
    ForeignKey,
    Integer,
    MetaData,
    Select,
    bindparam,
    cast,
    func,
    literal_column,
    select,
)
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    relationship,
    selectinload,
)

from async_loader.load.context import OperationContext
from async_loader.load.workload import Workload

ReadVia = Literal["execute", "stream"]
ReadFrom = Literal["first", "uniform"]

PAGE = 10


@dataclass(frozen=True, slots=True)
class Model:
    """
    The mapped classes, and the statements that read them.

    The statements are built once: each construction and cache key would cost as much as
    some of the statements.
    """

    metadata: MetaData
    parent: type[Any]
    child: type[Any]
    first_page: Select[Any]
    any_page: Select[Any]

    def family(self, n: int) -> list[Any]:
        """Return three new parents with 2, 1 and 2 children."""
        parent, child = self.parent, self.child
        return [
            parent(data=f"{n}-1", children=[child(), child()]),
            parent(data=f"{n}-2", children=[child()]),
            parent(data=f"{n}-3", children=[child(), child()]),
        ]


@cache
def declare(prefix: str = "") -> Model:
    """Map the two tables, with a prefix to their names where a database has no schemas."""

    class Base(DeclarativeBase):
        pass

    class Parent(Base):
        __tablename__ = f"{prefix}parent"
        # The server's timestamp is read back within the INSERT.
        __mapper_args__ = {"eager_defaults": True}  # noqa: RUF012  the declaration's form

        id: Mapped[int] = mapped_column(primary_key=True)
        data: Mapped[str | None]
        created_at: Mapped[datetime] = mapped_column(server_default=func.now())
        children = relationship("Child")

    class Child(Base):
        __tablename__ = f"{prefix}child"

        id: Mapped[int] = mapped_column(primary_key=True)
        # Without the index every read would scan the whole table.
        parent_id: Mapped[int | None] = mapped_column(ForeignKey(Parent.id), index=True)
        data: Mapped[str | None]

    page = select(Parent).options(selectinload(Parent.children)).order_by(Parent.id)
    # Of a LIMIT in a parameter PostgreSQL's generic plan expects a tenth of the table, so that
    # each execution would be planned anew: a third of what a read costs the server.
    page = page.limit(literal_column(str(PAGE)))
    highest = func.coalesce(func.max(Parent.id), 0)
    anywhere = select(cast(highest * bindparam("share", type_=Double), Integer)).scalar_subquery()
    return Model(
        metadata=Base.metadata,
        parent=Parent,
        child=Child,
        first_page=page,
        any_page=page.where(Parent.id >= anywhere),
    )


def build(
    *, read_via: ReadVia = "execute", read_from: ReadFrom = "first", prefix: str = ""
) -> Workload:
    """
    Return the workload.

    `read_via`: `session.execute`, or `session.stream` with a server-side cursor.
    `read_from`: always the first page, or a page from anywhere in the table.
    """
    workload = Workload("mixed")
    model = declare(prefix)
    statement = model.first_page if read_from == "first" else model.any_page
    streamed = read_via == "stream"

    @workload.setup
    async def create_tables(sessions: async_sessionmaker[AsyncSession]) -> None:
        async with sessions.begin() as session:
            await (await session.connection()).run_sync(model.metadata.create_all)

    @workload.operation("create", kind="write")
    async def create(session: AsyncSession, op: OperationContext) -> None:
        session.add_all(model.family(op.index))
        await session.commit()

    @create.sync
    def create_sync(session: Session, op: OperationContext) -> None:
        session.add_all(model.family(op.index))
        session.commit()

    @workload.operation("read", kind="read")
    async def read(session: AsyncSession, op: OperationContext) -> None:
        if streamed:
            result = await session.stream(statement, _parameters(op))
            walk([parent async for parent in result.scalars()])
        else:
            walk(await session.scalars(statement, _parameters(op)))

    @read.sync
    def read_sync(session: Session, op: OperationContext) -> None:
        options = {"stream_results": streamed}
        walk(session.scalars(statement, _parameters(op), execution_options=options))

    def _parameters(op: OperationContext) -> dict[str, float]:
        return {"share": op.rng.random()} if read_from == "uniform" else {}

    return workload


def walk(parents: Iterable[Any]) -> int:
    """Touch every loaded child, as an application that renders them does."""
    return sum(len(parent.children) for parent in parents)

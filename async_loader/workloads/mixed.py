"""
Parents with children over an indexed foreign key: one operation writes, one reads.

`create` adds three parents with 2, 1 and 2 children in one transaction. `read` loads a page
of ten parents with their children and walks them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from sqlalchemy import Double, ForeignKey, Integer, Select, bindparam, cast, func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload

from async_loader.workload import OperationContext, Workload

ReadVia = Literal["execute", "stream"]
ReadFrom = Literal["first", "uniform"]

PAGE = 10


class Base(DeclarativeBase):
    """The tables of this workload."""


class Parent(Base):
    """A row with a server-defaulted column, which `eager_defaults` reads back."""

    __tablename__ = "parent"
    __mapper_args__ = {"eager_defaults": True}  # noqa: RUF012  SQLAlchemy's own declaration form

    id: Mapped[int] = mapped_column(primary_key=True)
    data: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    children: Mapped[list[Child]] = relationship()


class Child(Base):
    """A row of a parent's. Without the index every read would scan the whole table."""

    __tablename__ = "child"

    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("parent.id"), index=True)
    data: Mapped[str | None]


# Built once: each construction and cache key would cost as much as some of the statements.
_PAGE_OF_PARENTS = (
    select(Parent).options(selectinload(Parent.children)).order_by(Parent.id).limit(PAGE)
)
_FIRST_PAGE = _PAGE_OF_PARENTS
_ANY_PAGE = _PAGE_OF_PARENTS.where(
    Parent.id
    >= select(
        cast(func.coalesce(func.max(Parent.id), 0) * bindparam("share", type_=Double), Integer)
    ).scalar_subquery()
)


def build(*, read_via: ReadVia = "execute", read_from: ReadFrom = "first") -> Workload:
    """
    Return the workload.

    `read_via`: `session.execute`, or `session.stream` with a server-side cursor.
    `read_from`: always the first page, or a page from anywhere in the table.
    """
    workload = Workload("mixed")
    statement = _FIRST_PAGE if read_from == "first" else _ANY_PAGE
    load = _load if read_via == "execute" else _load_by_stream

    @workload.setup
    async def create_tables(sessions: async_sessionmaker[AsyncSession]) -> None:
        async with sessions.begin() as session:
            await (await session.connection()).run_sync(Base.metadata.create_all)

    @workload.operation("create", kind="write")
    async def create(session: AsyncSession, op: OperationContext) -> None:
        session.add_all(family(op.index))
        await session.commit()

    @workload.operation("read", kind="read")
    async def read(session: AsyncSession, op: OperationContext) -> None:
        parameters = {"share": op.rng.random()} if read_from == "uniform" else {}
        walk(await load(session, statement, parameters))

    return workload


def family(n: int) -> list[Parent]:
    """Return three new parents with 2, 1 and 2 children."""
    return [
        Parent(data=f"{n}-1", children=[Child(), Child()]),
        Parent(data=f"{n}-2", children=[Child()]),
        Parent(data=f"{n}-3", children=[Child(), Child()]),
    ]


def walk(parents: list[Parent]) -> int:
    """Touch every loaded child, as an application that renders them does."""
    return sum(len(parent.children) for parent in parents)


async def _load(
    session: AsyncSession, statement: Select[Parent], parameters: dict[str, float]
) -> list[Parent]:
    return list((await session.execute(statement, parameters)).scalars())


async def _load_by_stream(
    session: AsyncSession, statement: Select[Parent], parameters: dict[str, float]
) -> list[Parent]:
    result = await session.stream(statement, parameters)
    return [parent async for parent in result.scalars()]

"""How it is inserted: SQLAlchemy's ways, ours, and the driver's own COPY as the floor."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from .. import insert_rows
from .shapes import Shape

Write = Callable[[AsyncSession, Shape, Any], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class InsertStrategy:
    """
    One way; `write` is what is timed, on material that is made before.

    Objects that a flush is to write are added to the session before, too.
    """

    name: str
    write: Write
    takes_objects: bool
    batching: bool = False
    mixes_keys: bool = True  # takes rows that do not all name the same columns

    def serves(self, shape: Shape) -> bool:
        """Tell whether this way can insert that shape at all."""
        if self.name in {"stock", "ours"}:
            return True
        return shape.rows is not None and (self.mixes_keys or shape.same_keys)

    def prepare(self, session: AsyncSession, material: Any) -> None:
        """Add what a flush is to write."""
        if self.write is _flush:
            session.add_all(material)


async def _flush(session: AsyncSession, _shape: Shape, _objects: list[Any]) -> None:
    await session.flush()


async def _bulk_save(session: AsyncSession, _shape: Shape, objects: list[Any]) -> None:
    await session.run_sync(lambda sync: sync.bulk_save_objects(objects))


async def _bulk_mappings(session: AsyncSession, shape: Shape, rows: list[Any]) -> None:
    await session.run_sync(lambda sync: sync.bulk_insert_mappings(shape.model, rows))


async def _orm_bulk(session: AsyncSession, shape: Shape, rows: list[Any]) -> None:
    await session.execute(insert(shape.model), rows)


async def _core(session: AsyncSession, shape: Shape, rows: list[Any]) -> None:
    connection = await session.connection()
    await connection.execute(insert(shape.model.__table__), rows)


async def _insert_rows(session: AsyncSession, shape: Shape, rows: list[Any]) -> None:
    await insert_rows(session, shape.model, rows)


async def _copy(session: AsyncSession, shape: Shape, rows: list[Any]) -> None:
    connection = await session.connection()
    pooled = await connection.get_raw_connection()
    driver: Any = pooled.driver_connection
    table = shape.model.__table__
    await driver.copy_records_to_table(
        table.name,
        schema_name=table.schema,
        columns=list(rows[0]),
        records=[tuple(row.values()) for row in rows],
    )


WAYS: dict[str, InsertStrategy] = {
    way.name: way
    for way in (
        InsertStrategy("stock", _flush, takes_objects=True),
        InsertStrategy("ours", _flush, takes_objects=True, batching=True),
        InsertStrategy("bulk_save_objects", _bulk_save, takes_objects=True),
        InsertStrategy("bulk_insert_mappings", _bulk_mappings, takes_objects=False),
        InsertStrategy("orm_bulk_insert", _orm_bulk, takes_objects=False),
        InsertStrategy("core_insert", _core, takes_objects=False, mixes_keys=False),
        InsertStrategy("insert_rows", _insert_rows, takes_objects=False),
        InsertStrategy("copy", _copy, takes_objects=False, mixes_keys=False),
    )
}

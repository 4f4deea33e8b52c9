"""
A chunk's rows, read within its transaction, and what Python makes of their keys.

Rows of different keys that SQLAlchemy takes for one object, or whose object would be written
to another row, are refused before anything is applied to them: a float of a numeric, a year of
interval, a date of infinity, a type that changes its values.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Result, Select, func, inspect
from sqlalchemy import select as select_
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.util import await_only

from ..errors import ConfigurationError
from .keyset import SETTINGS, Keyset, Page, encode


def read_rows(session: AsyncSession, keyset: Keyset, page: Page) -> Sequence[Any]:
    """Return what a select yields: objects of one mapped class, or rows; within `run_sync`."""
    rows: Sequence[Any]
    result = _execute(session, page)
    if not keyset.entities:
        rows = result.all()
    elif keyset.joins_collections:
        rows = result.scalars().unique().all()
    else:
        try:
            rows = result.scalars().all()
        except InvalidRequestError:
            _make_unique(keyset)
            return read_rows(session, keyset, page)
    return rows


def _execute(session: AsyncSession, page: Page) -> Result[Any]:
    if type(session).execute is AsyncSession.execute:
        return session.sync_session.execute(*page)
    return await_only(session.execute(*page))  # a class of the application's has its own


async def read_with_versions(
    session: AsyncSession, keyset: Keyset, page: Page
) -> dict[str, tuple[str, Any]]:
    """
    Return by its key what a select yields that has the key's columns at its end: each row, and
    its version where the keyset has one.
    """
    result = await session.execute(*page)
    if keyset.entities:
        result = result.unique()
    names = len(keyset.columns) + (keyset.version is not None)
    own = len(result.keys()) - names
    kept = result.freeze()
    told = kept().columns(*range(own, own + names)).all()
    rows = kept().columns(*range(own))
    found = zip(told, rows.scalars() if keyset.entities else rows, strict=True)
    if keyset.version is None:
        return {encode(key): ("", row) for key, row in found}
    return {encode(key[:-1]): (str(key[-1]), row) for key, row in found}


def _make_unique(keyset: Keyset) -> None:
    """Have objects made unique from now on: SQLAlchemy says so only once there is a row."""
    if not keyset.one_each:
        raise ConfigurationError(
            "a job's select joins a collection eagerly and yields an object more than once: "
            "load the collection by selectinload"
        )
    keyset.joins_collections = True


async def check_objects(
    session: AsyncSession, keyset: Keyset, span: tuple[str | None, str | None], rows: Sequence[Any]
) -> None:
    """Raise `ConfigurationError` where objects are not their rows' own."""
    if not keyset.entities or not rows:
        return
    found = len(set(map(id, rows)))
    if keyset.one_each and found < len(rows):
        raise ConfigurationError(_not_its_own(keyset, span))
    if keyset.doubtful:
        identities = {id(row): inspect(row).identity for row in rows}
        query = keyset.found_again(*span, list(identities.values()))
        here, everywhere = (await session.execute(query)).one()
        if not here == everywhere == len(identities):
            raise ConfigurationError(_not_its_own(keyset, span))


def _not_its_own(keyset: Keyset, span: tuple[str | None, str | None]) -> str:
    types = ", ".join(f"{c.name} {c.type}" for c in keyset.ordering.columns)
    return (
        f"the key ({types}) is not in Python what it is in the database: an object of the rows "
        f"{keyset.describe_range(*span)} is another row's or none's; give its column the type "
        "that the database has, or select columns"
    )


@asynccontextmanager
async def our_settings(session: AsyncSession, keyset: Keyset) -> AsyncIterator[None]:
    """Have keys written under our settings for a block, and under the session's behind it."""
    if not keyset.needs_settings:
        yield
        return
    theirs = (await session.execute(_ASKED)).one()
    await session.execute(_set(SETTINGS))
    yield
    await session.execute(_set(dict(zip(SETTINGS, theirs, strict=True))))


def _set(values: dict[str, str]) -> Select[Any]:
    return select_(*(func.set_config(name, value, True) for name, value in values.items()))


_ASKED: Select[Any] = select_(*map(func.current_setting, SETTINGS))

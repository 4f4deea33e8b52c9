"""Delete many objects, with all that goes with them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session


async def delete_all(session: AsyncSession, objects: Iterable[Any]) -> None:
    """Mark objects as deleted, as `session.delete` of each does, and load in few trips.

    `session.delete` loads the children that go with an object, and before each load the session
    flushes: of a thousand parents each is a flush of its own. Here the children of all are
    loaded first, a statement a relationship and level, so that the next flush deletes
    everything at once. In `enable_batching` sessions of SQLAlchemy 2.1 `session.delete_all` does
    the same.
    """
    await session.run_sync(delete_all_of, list(objects))


def delete_all_of(session: Session, objects: Iterable[Any]) -> None:
    """Mark objects of a sync session as deleted, once their children are loaded."""
    from .children import load_cascades  # noqa: PLC0415  who imports the name may not call it
    from .flush import serves  # noqa: PLC0415  as above

    instances = list(objects)
    states = [inspect(one) for one in instances]
    if states and all(state.persistent and state.session is session for state in states):
        mapper: Any = states[0].mapper
        if serves(session.connection(bind_arguments={"mapper": mapper})):
            load_cascades(session, states)
    for one in instances:
        session.delete(one)


def deletes_like_stock(cls: type[Session]) -> bool:
    """Tell whether a class of sessions has no `delete_all` of its own; 2.0 has none at all."""
    method = getattr(cls, "delete_all", None)
    return method is getattr(Session, "delete_all", None)

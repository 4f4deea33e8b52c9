"""
Turn batching on: for a session factory, a class of sessions, or one session.

What batches is imported when it is turned on: the names alone cost an application nothing.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from ..errors import ConfigurationError
from .statement_bytes import STATEMENT_BYTES

Target = (
    async_sessionmaker[Any]
    | sessionmaker[Any]
    | async_scoped_session[Any]
    | scoped_session[Any]
    | type[AsyncSession]
    | type[Session]
    | AsyncSession
    | Session
)


def enable_batch_inserting(
    target: Target, *, reserve: int = 0, statement_bytes: int = STATEMENT_BYTES
) -> None:
    """Write new objects of these sessions in few statements and with less CPU.

    `target` is an `async_sessionmaker`, a `sessionmaker` of either kind of session, a scoped
    session over one of them, a class of `AsyncSession` or `Session`, or one session. Turned on
    twice it is on once, with the last settings.

    What SQLAlchemy alone does right is left to it, and `explain` says so. A table is asked for
    its triggers, rules, policies and defaults once on each connection; DDL of later on is seen
    by connections that are opened after it. A statement carries at most `statement_bytes` bytes
    of text and binary values (16 MiB), or one row.

    Some flushes have to ask a sequence for keys before they insert: trees, objects that differ
    in the columns they set, a `Sequence` of one's own. With `reserve=N` a block of N keys is
    kept per engine and sequence, and such flushes of up to N objects take theirs from it without
    a round trip. A block is drawn on a short-lived connection outside the pool, in a transaction
    that is durable before the first key is used, and thrown away when any connection of the pool
    is made, closed or lost; so keys have gaps, and those of several flushes are in no order. Not
    for engines without a pool of lasting connections, or whose tables are dropped, emptied with
    RESTART IDENTITY, or change places in the `search_path`, while it lives.

    Raises TypeError for any other target, and ConfigurationError for settings out of range.
    """
    enable_batching(
        target, updates=False, deletes=False, reserve=reserve, statement_bytes=statement_bytes
    )


def enable_batching(
    target: Target,
    *,
    inserts: bool = True,
    updates: bool = True,
    deletes: bool = True,
    strict_deletes: bool = False,
    reserve: int = 0,
    statement_bytes: int = STATEMENT_BYTES,
) -> None:
    """Write new, changed and deleted objects of these sessions in few trips to the server.

    `target`, `reserve` and `statement_bytes` are those of `enable_batch_inserting`, which is this
    with `inserts` alone. Turned on twice it is on once, with the last settings.

    Updates that SQLAlchemy sends row by row (of rows with a version, with values that are read
    back or are SQL) go in one trip, in its order, through the driver's pipeline. Where
    neighbours set different columns, each set of columns goes in one statement, if no trigger,
    rule, policy, view or unique index shows in which order rows are updated; the locks of all
    rows are taken in the order of their keys first. Versioned rows are deleted in one trip. What
    SQLAlchemy alone does right is left to it, and `explain` says so.

    How many rows were matched is checked where SQLAlchemy checks it on that driver. On asyncpg it
    counts deletes of several versioned rows and does not look: `strict_deletes` raises
    `StaleDataError` there, too.

    Raises TypeError for any other target, and ConfigurationError for settings out of range.
    """
    if reserve < 0:
        raise ConfigurationError(f"reserve must be 0 or more, not {reserve}")
    if statement_bytes < 1:
        raise ConfigurationError(f"statement_bytes must be 1 or more, not {statement_bytes}")

    from .sessions import enable  # noqa: PLC0415  who imports the names may never turn it on
    from .unit_of_work import Setting  # noqa: PLC0415  as above

    enable(target, Setting(inserts, updates, deletes, strict_deletes, reserve, statement_bytes))

"""
The fence of a chunk: the first and the last statement of its transaction.

    enter    lock the partition's row, check that it is ours and at the chunk that we know, and
             put the transaction's number into it
    ...      what apply does
    leave    move cursor, counters and chunk number, and take that number away

On PostgreSQL the number refers to a table that is always empty, by a constraint that is
checked at COMMIT: a COMMIT before `leave` fails and rolls all back. `leave` matches no row but
in the transaction that entered, and fails in one that was aborted (25P02). On SQLite a
savepoint stands for the number: it is gone when the transaction is not that one any more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    Delete,
    Table,
    Update,
    and_,
    bindparam,
    func,
    literal,
    select,
    text,
)
from sqlalchemy import delete as delete_
from sqlalchemy import insert as insert_
from sqlalchemy import update as update_
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from .outcomes import TakenOver
from .tables import FENCE, Tables, lock_key
from .transient import limit_of

_SAVEPOINT = "async_loader_chunk"

# What names mean: the schemas that they are looked for in, and whose privileges count.
Names = tuple[str, str]
_SETTINGS = ("search_path", "role")


@dataclass(frozen=True, slots=True)
class Counts:
    """What chunks did: rows, and seconds."""

    read: int = 0
    written: int = 0
    skipped: int = 0
    prepared: int = 0
    busy: float = 0.0


@dataclass(frozen=True, slots=True)
class Advance:
    """Where a chunk's transaction moves its partition, and what it adds to it."""

    cursor: str | None
    ahead: str | None
    done: bool
    retried: int
    counts: Counts


@dataclass(frozen=True, slots=True)
class Entered:
    """What holds in a chunk's transaction: what names mean, and a statement's limit in seconds."""

    names: Names | None = None
    limit: float = math.inf


def is_fenced(error: BaseException) -> bool:
    """Return whether an error says that a COMMIT before the chunk's last act was refused."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, DBAPIError) and FENCE in str(link.orig):
            return True
        link = link.__cause__
    return False


class Fence:
    """The statements about one row, a partition's or an error's, that fence what is applied."""

    def __init__(self, row: Table, here: Any, leave: Update | Delete, lock_class: int) -> None:
        entering = update_(row).where(here)
        if row.metadata.schema is None:
            self._enter: Any = entering.values(under_way=0).returning(literal(0))
            self._leave: Any = leave.where(here).returning(literal(1))
            self._savepoint = True
        else:
            transaction = func.txid_current(type_=BigInteger)
            # In the same statement: a server that ends who idles would end one that waits for
            # another service, and the lock that tells others which backend works for us.
            self._enter = entering.values(under_way=transaction).returning(
                func.set_config("idle_in_transaction_session_timeout", "0", True),
                func.pg_advisory_xact_lock_shared(lock_class, bindparam("in_lock")),
                *map(func.current_setting, (*_SETTINGS, "statement_timeout")),
            )
            ours = row.c.under_way == transaction
            names = map(func.current_setting, _SETTINGS)
            self._leave = leave.where(and_(here, ours)).returning(literal(1), *names)
            self._savepoint = False

    def enter(self, at: Connection, place: dict[str, Any], me: int) -> Entered:
        """Begin, and return what holds now; `TakenOver` where the row is not there for us."""
        values = place if self._savepoint else {**place, "in_lock": lock_key(me)}
        row = at.execute(self._enter, values).first()
        if row is None:
            raise TakenOver
        if self._savepoint:
            at.execute(text(f"SAVEPOINT {_SAVEPOINT}"))
            return Entered()
        return Entered((row[2], row[3]), limit_of(row[4]))

    def leave(self, at: Connection, values: dict[str, Any], names: Names | None) -> bool:
        """
        End; False in another transaction than the one that entered.

        What `names` mean is set back for whoever has the connection next: a function, or what
        goes to the driver, may have changed it for good.
        """
        if self._savepoint:
            try:
                at.execute(text(f"RELEASE {_SAVEPOINT}"))
            except DBAPIError as error:
                if "no such savepoint" in str(error.orig):
                    return False
                raise
        row = at.execute(self._leave, values).first()
        if row is not None and names is not None and (row[1], row[2]) != names:
            at.execute(_SET_BACK, dict(zip(_SETTINGS, names, strict=True)))
        return row is not None


_SET_BACK = select(*(func.set_config(name, bindparam(name), False) for name in _SETTINGS))


class DryFence(Fence):
    """The fence of a partition that is there within each of its transactions alone."""

    tables: Tables

    def enter(self, at: Connection, place: dict[str, Any], me: int) -> Entered:
        """Begin, with a run that nobody ever sees."""
        run, partition = self.tables.run, self.tables.partition
        names = {"job": "", "arguments": "", "key": "", "state": "cancelled", "round": 1}
        at.execute(insert_(run).values(id=place["in_run"], **names))
        values = {"round": 1, "done": False, "chunk": place["in_chunk"], "owner": place["in_owner"]}
        at.execute(
            insert_(partition).values(run=place["in_run"], number=place["in_number"], **values)
        )
        return super().enter(at, place, me)


def dry_fence(tables: Tables) -> DryFence:
    """Return the fence of chunks that are all rolled back."""
    fence = partition_fence(tables, DryFence)
    fence.tables = tables
    return fence


F = TypeVar("F", bound=Fence)


def partition_fence(tables: Tables, kind: type[F]) -> F:
    """Return the fence of a partition's chunks."""
    partition = tables.partition
    here = and_(
        partition.c.run == bindparam("in_run"),
        partition.c.number == bindparam("in_number"),
        partition.c.owner == bindparam("in_owner"),
        partition.c.chunk == bindparam("in_chunk"),
    )
    return kind(partition, here, advancing(tables), tables.chunk_lock_class)


def error_fence(tables: Tables) -> Fence:
    """Return the fence of a row that is tried again: its line in the error table."""
    error = tables.error
    here = and_(error.c.run == bindparam("in_run"), error.c.key == bindparam("in_key"))
    return Fence(error, here, delete_(error), tables.chunk_lock_class)


def advancing(tables: Tables) -> Update:
    """Return the statement that moves a partition, whichever it is."""
    column = tables.partition.c
    counters = {
        name: column[name] + bindparam(f"more_{count}", type_=column[name].type)
        for name, count in (
            ("rows_read", "read"), ("rows_written", "written"), ("rows_skipped", "skipped"),
            ("rows_prepared", "prepared"), ("busy", "busy"),
        )
    }  # fmt: skip
    return update_(tables.partition).values(
        chunk=column.chunk + 1,
        cursor=bindparam("new_cursor"),
        ahead=bindparam("new_ahead"),
        done=bindparam("new_done"),
        retried=column.retried + bindparam("new_retried"),
        under_way=None,
        **counters,
    )


def values_of(by: Advance) -> dict[str, Any]:
    """Return the parameters of `advancing`."""
    counts = {f"more_{name}": getattr(by.counts, name) for name in Counts.__slots__}
    return {
        "new_cursor": by.cursor, "new_ahead": by.ahead, "new_done": by.done,
        "new_retried": by.retried, **counts,
    }  # fmt: skip

"""
Blocks of sequence values kept for small flushes, so that their keys need no round trip.

A value is fit to be used only once it is durable that the sequence has passed it: a sequence
whose values were not flushed hands them out again after a crash. So a block is drawn in a
transaction of its own that commits synchronously. `nextval` writes to the log only every 32
values and otherwise leaves the transaction without an id and its commit without a flush, so one
is forced. The connection is outside the pool: inside it, as many tasks as it has places would
wait for each other.

Blocks are kept per pool, which `Engine.dispose` replaces, and thrown away whenever a connection
of it is made, lost or closed: behind a new connection may be a server that took over, or was
restored, without the block.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import event
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.pool import Pool

Sequenced = tuple[int, int]  # object id of a sequence, values wanted

RETRY_AFTER = 10.0  # seconds without a further attempt, after one that failed

# A lock on the sequence may be the waiting session's own: it must not be waited for.
_BEGIN = """
SELECT set_config('lock_timeout', '100ms', true), pg_current_xact_id(),
       CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')
            THEN set_config('synchronous_commit', 'on', true) END
"""
_DRAW = "SELECT ARRAY(SELECT nextval({}::regclass) FROM generate_series(1, {}))"


class Reserve:
    """The blocks of one pool, by sequence."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # never held while the server is asked
        self._blocks: dict[int, list[int]] = {}
        self._generation = 0
        self._filling = False
        self._not_before = 0.0

    def drop(self, *_: Any) -> None:
        """Pool event: throw all blocks away."""
        with self._lock:
            self._blocks.clear()
            self._generation += 1

    def take(self, wanted: Sequence[Sequenced]) -> list[list[int]] | None:
        """Return values for all that is wanted, or None when a block has too few."""
        total: Counter[int] = Counter()
        for sequence, count in wanted:
            total[sequence] += count
        with self._lock:
            blocks = self._blocks
            if any(len(blocks.get(sequence, ())) < count for sequence, count in total.items()):
                return None
            found = []
            for sequence, count in wanted:
                block = blocks[sequence]
                found.append(block[:count])
                del block[:count]
            return found

    def fill(self, connection: Connection, sequences: Sequence[int], size: int) -> None:
        """Reserve a block of each sequence, unless somebody is at it or it failed just now."""
        with self._lock:
            if self._filling or time.monotonic() < self._not_before:
                return
            self._filling = True
            generation = self._generation
        try:
            blocks = _reserve(connection, sequences, size)
            with self._lock:
                if generation == self._generation:
                    for sequence, block in zip(sequences, blocks, strict=True):
                        self._blocks.setdefault(sequence, []).extend(block)
        except Exception:
            self._not_before = time.monotonic() + RETRY_AFTER
        finally:
            self._filling = False


_RESERVES: WeakKeyDictionary[Pool, Reserve] = WeakKeyDictionary()
# Else parent and child would both use the blocks.
os.register_at_fork(after_in_child=_RESERVES.clear)


def reserve_of(connection: Connection) -> Reserve:
    """Return the blocks of the pool that a connection is from."""
    pool = connection.engine.pool
    found = _RESERVES.get(pool)
    if found is None:
        found = _RESERVES[pool] = Reserve()
        for happening in ("connect", "close", "invalidate", "soft_invalidate"):
            event.listen(pool, happening, found.drop)
    return found


def ordered(keys: list[Any]) -> list[Any]:
    """`generate_series` promises no order; a sequence may count downwards."""
    return sorted(keys, reverse=len(keys) > 1 and keys[0] > keys[-1])


def _reserve(connection: Connection, sequences: Sequence[int], size: int) -> list[list[int]]:
    pool: Any = connection.engine.pool
    own: Any = pool._invoke_creator(None)
    try:
        _fetch(own, connection.dialect, _BEGIN)
        blocks = [
            ordered(list(_fetch(own, connection.dialect, _DRAW.format(sequence, size))))
            for sequence in sequences
        ]
        own.commit()
    except BaseException:
        _terminate(own)
        raise
    own.close()
    return blocks


def _fetch(own: Any, dialect: Dialect, sql: str) -> Any:
    cursor = own.cursor()
    try:
        dialect.do_execute(cursor, sql, ())
        return cursor.fetchone()[0]
    finally:
        cursor.close()


def _terminate(own: Any) -> None:
    """Let go without asking the server, which may be gone."""
    end: Callable[[], None] = getattr(own, "terminate", own.close)
    end()

"""
Statements of which the text does not tell whether they write: functions, what was prepared in SQL.

PostgreSQL knows whether a transaction has written anything: it has a number then. That is asked
where one is rolled back in which nothing else has told, at the cost of a round trip; and of a
statement that was found to write nothing so many times, no more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from .statements import OURS

_ASK = f"SELECT {OURS} pg_current_xact_id_if_assigned() IS NOT NULL"
_OFTEN_ENOUGH = 20
_MOST = 2048  # statements that are remembered: an application's own, or made up each time
_harmless: Counter[str] = Counter()


def is_undetermined(sql: str) -> bool:
    """Return whether a statement that may write is still to be asked about."""
    return _harmless[sql] < _OFTEN_ENOUGH


def has_written(dialect: Any, connection: Any, statements: Collection[str]) -> bool:
    """Return whether the transaction that made these has written anything; False if not known."""
    if dialect.name != "postgresql" or dialect.server_version_info < (13,):
        return False
    with suppress(Exception):  # the rollback that comes next will say what is wrong
        cursor = connection.cursor()
        cursor.execute(_ASK)
        (written,) = cursor.fetchone()
        cursor.close()
        if not written:
            if len(_harmless) > _MOST:
                _harmless.clear()
            _harmless.update(set(statements))
        return bool(written)
    return False

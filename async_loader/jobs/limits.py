"""How long a statement of a chunk may take, and so who has cancelled it: somebody, or the limit."""

from __future__ import annotations

import time

from sqlalchemy import text
from sqlalchemy.engine import Connection

from .statements import limits, rolls_back
from .transient import limit_of

_LIMIT = text("SELECT current_setting('statement_timeout')")


class StatementLimit:
    """A transaction's `statement_timeout`, which apply may change; nobody's until it is known."""

    def __init__(self) -> None:
        self._seconds: float | None = None  # None: to be asked
        self._sent = 0.0
        self._changed = self.asking = False

    @property
    def is_kept(self) -> bool:
        """Whether the last statement has taken less: who cancelled it was somebody."""
        return self._seconds is not None and time.monotonic() - self._sent < self._seconds

    def begin(self, seconds: float) -> None:
        """Begin with what the session has."""
        self._seconds = seconds

    def sent(self, connection: Connection, statement: str) -> None:
        """Note a statement; ask first, where apply has set the limit or rolled that back."""
        rolling_back = rolls_back(statement)
        if self._seconds is None and not rolling_back:
            self.asking = True
            try:
                self._seconds = limit_of(str(connection.scalar(_LIMIT)))
            finally:
                self.asking = False
        if limits(statement):
            self._seconds, self._changed = None, True
        elif rolling_back and self._changed:
            self._seconds = None
        self._sent = time.monotonic()

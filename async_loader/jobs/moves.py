"""
An apply that moves the key that its job pages by: such rows would be read again, or never.

Statements that set a column of the key are refused before they are executed, those of the ORM's
flushes among them. What a statement does not say, a trigger, a rule, a cascade, a view or a
function (movers.py), is seen by comparing what is in the chunk's range of keys afterwards with
what was in it before: on PostgreSQL row by row, and only what this transaction has changed
(key_snapshot.py); on SQLite, where nobody else writes, by counting. Of what goes to the driver
itself (drivers.py) only the text is looked at: it cannot be looked before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from sqlalchemy import Connection

from ..errors import ConfigurationError
from .key_snapshot import CursorLostError, KeySnapshot
from .keyset import Keyset
from .ordering import KeyTable
from .statements import bare, rolls_back

_TOKEN = re.compile(
    r"""'(?:[^']|'')*'|\$\$.*?\$\$|--[^\n]*|/\*.*?\*/   # what says nothing
    |(?P<name>(?:"(?:[^"]|"")*"|[\w$]+)(?:\s*\.\s*(?:"(?:[^"]|"")*"|[\w$]+))*)
    |(?P<mark>[(),=])""",
    re.VERBOSE | re.DOTALL,
)
_ENDS = {"where", "from", "returning", "when"}
_OPAQUE = re.compile(r"\s*(call|do|execute)\b|\bmerge\s+into\b", re.IGNORECASE)
_ONLY_FUNCTIONS = re.compile(r"\s*select\b(?!.*\bfrom\b)", re.IGNORECASE | re.DOTALL)
_LOST = "closes the cursor that its keys are watched by"
_WRITES = re.compile(r"\b(update|merge)\b", re.IGNORECASE)


class KeyWatch:
    """Watches one chunk's transaction, from its rows to the end of apply."""

    def __init__(self, keyset: Keyset, span: tuple[str | None, str | None]) -> None:
        self._keyset = keyset
        self._span = span
        self._snapshot = KeySnapshot(keyset, span)
        self._count: int | None = None
        self._by = ""
        self._refusal: str | None = None
        self._looking = self._deletes = False

    def check(self, connection: Connection) -> None:
        """Raise `ConfigurationError` if the key was moved, whoever has caught that."""
        self._looking = True  # what comes behind is ours
        if self._refusal is not None:
            raise ConfigurationError(self._refusal)
        if not self._by:
            return
        if self._keyset.movers.deferred:  # else they would move rows behind our look
            names = ", ".join(self._keyset.movers.deferred)
            connection.exec_driver_sql(f"SET CONSTRAINTS {names} IMMEDIATE")
        if self._is_moved(connection):
            raise ConfigurationError(self._moved(f"moves rows to other keys (by {self._by})"))

    def look(self, connection: Connection, statement: str) -> None:
        """Refuse a statement that sets the key, look before one of which nobody knows."""
        if self._looking:
            return
        self.hear(statement)
        if self._refusal is not None:
            raise ConfigurationError(self._refusal)
        self._deletes = self._deletes or "DELETE" in statement.upper()
        if rolls_back(statement):
            self._snapshot.rolled_back()
        elif (by := self._mover_in(statement)) is not None:
            self._looking = True
            self._take(connection)
            self._by, self._looking = self._by or by, False

    def hear(self, statement: str) -> None:
        """Note a statement that sets the key, one that the driver was given too."""
        for table in self._keyset.tables:
            if self._refusal is None and sets_key(statement, table):
                self._refusal = self._moved(f"sets {', '.join(sorted(table.columns))}")

    def _take(self, connection: Connection) -> None:
        if connection.dialect.name == "postgresql":
            self._snapshot.take(connection)
        elif self._count is None:
            self._count = self._counted(connection)

    def _is_moved(self, connection: Connection) -> bool:
        if connection.dialect.name != "postgresql":
            assert self._count is not None
            rows = self._counted(connection) - self._count
            return rows < 0 and not self._deletes
        try:
            return self._snapshot.is_moved(connection)
        except CursorLostError as error:
            raise ConfigurationError(self._moved(_LOST)) from error

    def _counted(self, connection: Connection) -> int:
        """Return how many rows are in the range."""
        query = self._keyset.base_count(*self._span)
        return -1 if query is None else int(connection.scalar(query) or 0)

    def _mover_in(self, statement: str) -> str | None:
        """Return what a statement may move rows by, None for one that says all it does."""
        moved_by = next((t.moved_by for t in self._keyset.tables if t.moved_by), None)
        if any(column.generated for column in self._keyset.ordering.columns):
            moved_by = moved_by or "a generated column"
        if moved_by and _WRITES.search(statement):
            return moved_by
        by = self._keyset.movers.in_statement(statement)
        return "a function" if by is None and is_opaque(statement) else by

    def _moved(self, how: str) -> str:
        return (
            f"apply {how}, and the job pages by ({self._keyset.names}): rows would be read again "
            f"or never; rolled back {self._keyset.describe_range(*self._span)}; page by columns "
            "that nothing changes (key=)"
        )


@lru_cache(maxsize=1024)
def is_opaque(statement: str) -> bool:
    """Return whether a statement does what its text does not say."""
    statement = bare(statement)
    return bool(_OPAQUE.search(statement) or _ONLY_FUNCTIONS.match(statement))


@lru_cache(maxsize=1024)
def sets_key(statement: str, table: KeyTable) -> bool:
    """Return whether a statement's text sets a column of the key."""
    if not _WRITES.search(statement):
        return False
    return any(
        table.is_named(target) and _plain(column) in table.columns
        for target, column in _assignments(statement)
    )


def _assignments(statement: str) -> Iterator[tuple[str, str]]:
    """Yield table and column of each assignment of an UPDATE, MERGE or ON CONFLICT DO UPDATE."""
    tokens = [m["name"] or m["mark"] for m in _TOKEN.finditer(statement) if m["name"] or m["mark"]]
    words = [token.lower() for token in tokens]
    target = ""
    for n, word in enumerate(words):
        if word == "into":
            target = tokens[n + 1] if n + 1 < len(tokens) else ""
        elif word == "update" and words[n + 1 : n + 2] != ["set"]:
            rest = tokens[n + 1 : n + 3]
            target = next((name for name in rest if name.lower() != "only"), "")
        elif word == "set":
            yield from ((target, column) for column in _set_columns(tokens[n + 1 :]))


def _set_columns(tokens: list[str]) -> Iterator[str]:
    """Yield what stands before the equals signs of a SET, in parentheses or not."""
    depth, names, left = 0, list[str](), True
    for part in tokens:
        if part == "(":
            depth += 1
        elif part == ")":
            depth -= 1
            if depth < 0:
                return
        elif depth == 0 and part.lower() in _ENDS:
            return
        elif part == "=" and depth == 0 and left:
            yield from names
            left = False
        elif part == "," and depth == 0:
            names, left = [], True
        elif left and part != ",":
            names.append(part)


def _plain(name: str) -> str:
    """Return a column's name as the catalogue has it."""
    last = re.split(r"\s*\.\s*(?=(?:[^\"]*\"[^\"]*\")*[^\"]*$)", name)[-1]
    return last[1:-1].replace('""', '"') if last.startswith('"') else last.lower()

"""
What may be shown of statements and errors: no literal, no parameter, no row, no password.

SQLAlchemy's `hide_parameters` hides the parameters that SQLAlchemy prints. The values come
through other doors as well: PostgreSQL quotes the row in DETAIL and the text that it cannot
read, asyncpg the argument that it cannot encode, and literals stand in the SQL itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from sqlalchemy.exc import StatementError

HIDDEN = "(hidden)"

_SHOWN_LENGTH = 240
_LITERAL = re.compile(r"'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$|(?<![\w$.])\d+(?:\.\d+)?\b", re.DOTALL)
_COLUMNS = re.compile(r"^(SELECT\s+(?:DISTINCT\s+)?).{24,}?(\sFROM\s)", re.IGNORECASE)

# SQLSTATE class 22, data exceptions: the message quotes the value.
_DATA_EXCEPTION = "22"
_QUOTED = re.compile(r'"(?:[^"]|"")*"', re.DOTALL)
_MASKS = (
    (re.compile(r"(\bDETAIL:\s+)\S.*"), rf"\1{HIDDEN}"),
    (re.compile(r"(\binvalid input for query argument \$\d+:?).*"), rf"\1 {HIDDEN}"),
    (re.compile(r"(\w://[^\s:/@]*:)[^\s@]+@"), r"\1***@"),
    (re.compile(r"(?i)(\bpassword\s*[=:]\s*)[^\s,;&)]+"), r"\1***"),
)


@lru_cache(maxsize=1024)
def shortened(statement: str) -> str:
    """Return SQL in one line: literals masked as they may be anybody's, long columns left out."""
    text = " ".join(_LITERAL.sub("?", statement).split())
    text = _COLUMNS.sub(r"\1...\2", text)
    return text if len(text) <= _SHOWN_LENGTH else f"{text[: _SHOWN_LENGTH - 4]} ..."


def redacted(text: str, error: BaseException) -> str:
    """Return a text that an exception was written into, without the values that it quotes."""
    for link in related(error):
        for secret, shown in _secrets(link):
            text = text.replace(secret, shown)
    for pattern, shown in _MASKS:
        text = pattern.sub(shown, text)
    return text


@contextmanager
def hiding_parameters(error: BaseException) -> Iterator[None]:
    """Let SQLAlchemy's errors, this one and those behind it, print no parameters meanwhile."""
    printing = [
        link
        for link in related(error)
        if isinstance(link, StatementError) and not link.hide_parameters
    ]
    for link in printing:
        link.hide_parameters = True
    try:
        yield
    finally:
        for link in printing:
            link.hide_parameters = False


def related(error: BaseException) -> list[BaseException]:
    """Return the error and all that it wraps, was caused by, arose from or groups."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop()
        if link is None or any(link is other for other in found):
            continue
        found.append(link)
        waiting += [getattr(link, "orig", None), link.__cause__, link.__context__]
        if isinstance(link, BaseExceptionGroup):
            waiting += link.exceptions
    return found


def _secrets(link: BaseException) -> Iterator[tuple[str, str]]:
    """Yield (text, what is shown instead) for what one exception quotes."""
    statement = getattr(link, "statement", None)
    if isinstance(statement, str) and statement:
        yield statement, shortened(statement)
    # asyncpg's attribute, and psycopg's.
    diagnosis = getattr(link, "diag", None)
    for detail in (getattr(link, "detail", None), getattr(diagnosis, "message_detail", None)):
        if isinstance(detail, str) and detail:
            yield detail, HIDDEN
    if str(getattr(link, "sqlstate", "")).startswith(_DATA_EXCEPTION):
        for argument in link.args:
            if isinstance(argument, str):
                yield argument, _QUOTED.sub(f'"{HIDDEN}"', argument)

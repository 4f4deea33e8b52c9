"""
What may be shown of statements and errors: no literal, no parameter, no row, no secret.

SQLAlchemy's `hide_parameters` hides the parameters that SQLAlchemy prints. The values come
through other doors as well: PostgreSQL quotes the row in DETAIL and the text that it cannot
read, asyncpg the argument that it cannot encode, and literals stand in the SQL itself. The
application's own messages hold tokens, keys and escape codes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from sqlalchemy.exc import StatementError

from .error_attributes import MOST_LINKS, attribute, sqlstate_in

HIDDEN = "(hidden)"

_SHOWN_LENGTH = 240
_LITERAL = re.compile(r"'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$|(?<![\w$.])\d+(?:\.\d+)?\b", re.DOTALL)
_COLUMNS = re.compile(r"^(SELECT\s+(?:DISTINCT\s+)?).{24,}?(\sFROM\s)", re.IGNORECASE)

# SQLSTATE class 22, data exceptions: the message quotes the value.
_DATA_EXCEPTION = "22"
_QUOTED = re.compile(r'"(?:[^"]|"")*"', re.DOTALL)
# Nothing that repeats without a bound stands before what is looked for: a message of one long
# word would be searched to its end from each of its letters.
_CONFIDENTIAL = (
    r"pass(?:word|wd|phrase)|pwd|secret|token|api[-_ ]?key|access[-_ ]?key|private[-_ ]?key|"
    r"credentials?|signature|authori[sz]ation|session[-_]?id|cookie"
)
_MASKS = (
    (re.compile(r"(\bDETAIL:\s+)\S.*"), rf"\1{HIDDEN}"),
    (re.compile(r"(\binvalid input for query argument \$\d+:?).*"), rf"\1 {HIDDEN}"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:(?!-----END).)*", re.DOTALL), "***"),
    (re.compile(r"(://[^\s:/@]{0,200}:)[^\s@]{1,500}@"), r"\1***@"),
    (re.compile(r"(://)[^\s:/@]{16,500}@"), r"\1***@"),
    (re.compile(r"(?i)\b(bearer\s+)[\w.~+/=-]+"), r"\1***"),
    (re.compile(r"\b([Bb]asic\s+)[A-Za-z0-9+/]{8,}={0,2}"), r"\1***"),
    # NAME: value, NAME=value, "NAME": "value", {'NAME': 'value'}; a cookie is all of its line.
    (re.compile(r"(?i)((?:set-)?cookie[\"']?\s*[=:]\s*)[^\r\n]+"), r"\1***"),
    (
        re.compile(
            rf"(?i)((?:{_CONFIDENTIAL})[\w-]{{0,40}}[\"']?\s*(?:=>?|:)\s*(?:(?:bearer|basic|digest)\s+)?)"
            r"(?:\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|[^\s,;&)}\]]+)"
        ),
        r"\1***",
    ),
    # Keys that are known by their looks: of JSON Web Tokens, Stripe, OpenAI, GitHub, GitLab,
    # Slack, AWS and Google.
    (
        re.compile(
            r"\b(?:eyJ[\w-]{5,}\.[\w-]+(?:\.[\w-]*)?|[spr]k[-_](?:live|test|proj)[-_][\w-]+"
            r"|sk-[\w-]{16,}|gh[pousr]_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}"
            r"|xox[a-z]-[\w-]{8,}|(?:AKIA|ASIA)[0-9A-Z]{16}|AIza[\w-]{30,})"
        ),
        "***",
    ),
)

# C0 and C1 codes but for tab and newline, what turns the direction of writing, lone surrogates.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Return a text as a terminal and a file can take it: an escape code as `\x1b`."""
    return _UNPRINTABLE.sub(lambda found: _escaped(found[0]), text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def masked(text: str) -> str:
    """Return SQL with its literals masked."""
    return _LITERAL.sub("?", text)


@lru_cache(maxsize=1024)
def shortened(statement: str) -> str:
    """Return SQL in one line: literals masked as they may be anybody's, long columns left out."""
    text = " ".join(masked(statement).split())
    text = _COLUMNS.sub(r"\1...\2", text)
    return text if len(text) <= _SHOWN_LENGTH else f"{text[: _SHOWN_LENGTH - 4]} ..."


def redacted(text: str, error: BaseException) -> str:
    """Return a text that an exception was written into, printable, without what it quotes."""
    text = without_values(text, error)
    for pattern, shown in _MASKS:
        text = pattern.sub(shown, text)
    return printable(text)


def without_values(text: str, error: BaseException) -> str:
    """Return a text that an exception was written into without rows, arguments and literals."""
    for link in related(error):
        for secret, shown in _secrets(link):
            text = text.replace(secret, shown)
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
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting and len(found) < MOST_LINKS:
        link = waiting.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        found.append(link)
        waiting += [attribute(link, "orig", BaseException), link.__cause__, link.__context__]
        if isinstance(link, BaseExceptionGroup):
            waiting += link.exceptions[:MOST_LINKS]
    return found


def _secrets(link: BaseException) -> Iterator[tuple[str, str]]:
    """Yield (text, what is shown instead) for what one exception quotes."""
    statement = attribute(link, "statement", str)
    if statement:
        yield statement, shortened(statement)
    state = sqlstate_in(link)
    # asyncpg's attribute, where the error is a driver's (an application's `detail` is its own
    # message, as in FastAPI's HTTPException), and psycopg's.
    diagnosis = attribute(link, "diag", object)
    details = (
        attribute(link, "detail", str) if state is not None else None,
        attribute(diagnosis, "message_detail", str),
    )
    yield from ((detail, HIDDEN) for detail in details if detail)
    if state is not None and state.startswith(_DATA_EXCEPTION):
        for argument in link.args:
            if isinstance(argument, str):
                yield argument, _QUOTED.sub(f'"{HIDDEN}"', argument)

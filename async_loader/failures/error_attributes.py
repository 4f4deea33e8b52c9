"""
Attributes of other people's exceptions, which may be anything.

An application's exception may have an `orig` that is text, a property that raises, or a
`__getattr__` that answers everything: looking at one must neither fail nor mislead.
"""

from __future__ import annotations

import re
from typing import TypeVar

T = TypeVar("T")

MOST_LINKS = 100
"""Exceptions behind one that are looked at; a loop that retries may have chained thousands."""

_LONGEST_NAME = 100
_SQLSTATE = re.compile(r"[0-9A-Z]{5}")


def attribute(of: object, name: str, kind: type[T]) -> T | None:
    """Return an attribute if there is one of that type; None for anything else."""
    try:
        value = getattr(of, name, None)
        return value if isinstance(value, kind) else None
    except BaseException:  # a property of the application's own, which may even exit
        return None


def class_name(error: BaseException) -> str:
    """Return the name of an exception's class, of which a report can be sure to be one line."""
    name = type(error).__name__[:_LONGEST_NAME]
    return "".join(c if c.isprintable() else "?" for c in name)


def http_status(error: BaseException) -> int | None:
    """
    Return the HTTP status that an exception stands for, None where it is none of HTTP's.

    `status_code` of FastAPI, Starlette and Django REST framework, `status` of aiohttp, the
    response's of httpx and requests, `code` of urllib and werkzeug.
    """
    response = attribute(error, "response", object)
    places = [(error, "status_code"), (response, "status_code"), (error, "status")]
    if "HTTP" in "".join(base.__name__ for base in type(error).__mro__):
        places.append((error, "code"))
    for of, name in places:
        status = attribute(of, name, int)
        if status is not None and 100 <= status <= 599 and not isinstance(status, bool):
            return int(status)
    return None


def sqlstate_in(error: BaseException) -> str | None:
    """Return the five characters of one error's own SQLSTATE, if it is a driver's and has one."""
    state = attribute(error, "sqlstate", str)
    return state if state is not None and _SQLSTATE.fullmatch(state) else None


def constraint_of(error: BaseException) -> str | None:
    """Return the name of the constraint that one driver's error tells of, if it does."""
    if sqlstate_in(error) is None:
        return None
    diagnosis = attribute(error, "diag", object)
    return attribute(error, "constraint_name", str) or attribute(diagnosis, "constraint_name", str)

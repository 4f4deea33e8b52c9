"""Documents held against their types, and where in one a mistake is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

# How msgspec ends a message: " - at `$.pool.size`"; "[...]" is some key of a mapping.
_PLACE = re.compile(r" - at `\$(?P<path>[^`]*)`$")
_STEP = re.compile(r"\.(\w+)|\[(\d+|\.\.\.)\]")


class DocumentError(ValueError):
    """A document that is not what it should be: `problem`, at a `place` in it."""

    def __init__(self, problem: str, *place: str) -> None:
        super().__init__(": ".join(filter(None, (".".join(place), problem))))
        self.problem = problem
        self.place = place


def beneath(key: str, error: ValueError) -> DocumentError:
    """Return the error as one of a document that has the faulty one under this key."""
    if isinstance(error, DocumentError):
        return DocumentError(error.problem, key, *error.place)
    return DocumentError(str(error), key)


def converted(document: Any, wire: Any) -> Any:
    """
    Return a document as msgspec's type for it; keys that it does not know are left out.

    Raises `DocumentError` for the first value that is not what it should be.
    """
    try:
        return msgspec.convert(document, wire)
    except msgspec.ValidationError as error:
        raise _named(str(error), document, wire) from None


def _named(message: str, document: Any, wire: Any) -> DocumentError:
    found = _PLACE.search(message)
    problem = message[: found.start()] if found else message
    place: list[str] = []
    for name, index in _STEP.findall(found["path"] if found else ""):
        step = name or index
        if step == "...":
            step = next(
                k for k in _inner(document, place) if _is_at(document, place, k, message, wire)
            )
        place.append(step)
    return DocumentError(problem[:1].lower() + problem[1:], *place)


def _is_at(document: Any, place: list[str], key: str, message: str, wire: Any) -> bool:
    """Return whether the document with no other key in that mapping has the same mistake."""
    try:
        msgspec.convert(_with_only(document, place, key), wire)
    except msgspec.ValidationError as error:
        return str(error) == message
    return False


def _with_only(document: Any, place: list[str], key: str) -> Any:
    if not place:
        return {key: document[key]}
    first, *rest = place
    if isinstance(document, Mapping):
        return {**document, first: _with_only(document[first], rest, key)}
    copy = list(document)
    copy[int(first)] = _with_only(copy[int(first)], rest, key)
    return copy


def _inner(document: Any, place: list[str]) -> Any:
    for step in place:
        document = document[step] if isinstance(document, Mapping) else document[int(step)]
    return document

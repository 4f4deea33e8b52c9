"""What a field's annotation says of its key in a document, beside `msgspec.Meta`: see `form`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

# None: the value stays as it is.
Conversion = Callable[[Any], Any] | None
Getter = TypeVar("Getter", bound=Callable[[Any], Any])


@dataclass(slots=True, eq=False)  # never compared or changed: half the time to make
class Key:
    """The document has it by another name."""

    name: str


@dataclass(slots=True, eq=False)  # never compared or changed: half the time to make
class After:
    """Of a property that is shown: where in the document, behind which key; "": at its start."""

    key: str


@dataclass(slots=True, eq=False)  # never compared or changed: half the time to make
class Rounded:
    """Written with so many decimals."""

    digits: int


@dataclass(slots=True, eq=False)  # never compared or changed: half the time to make
class Stored:
    """Written as another type, which `write` makes of the value and `read` makes it of."""

    hint: Any
    write: Conversion = None
    read: Conversion = None


@dataclass(slots=True, eq=False)  # never compared or changed: half the time to make
class Named:
    """Of a mapping: its keys with what they mean. Older documents lack those of `later`."""

    title: str
    about: str
    keys: tuple[tuple[str, str], ...]
    later: frozenset[str] = frozenset()


@dataclass(slots=True, eq=False)  # never compared or changed: half the time to make
class Rebuilt:
    """Not written by itself: when it is read, `by` makes it of what is shown under these keys."""

    keys: tuple[str, ...]
    by: Callable[..., Any]


class _Mark:
    """What needs no more words."""


LATER = _Mark()
"""Older documents of the same schema lack the key."""

OMITTED = _Mark()
"""The key is left out for None."""


def shown(getter: Getter) -> Getter:
    """Mark a property's getter: the document shows what it returns."""
    getter.__dict__["shown"] = True
    return getter

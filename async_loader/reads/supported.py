"""
Whether this SQLAlchemy is one that a part relies on rightly.

Held against the code itself and not against a version: what a part replaces must take what it took
and use no name that nobody has read. Where that fails, the part stays off, with one warning.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Collection, Sequence
from functools import cache
from types import CodeType
from typing import Any

import sqlalchemy

from . import _sqlalchemy as private


def is_supported(part: str) -> bool:
    """Tell whether a part can be on here; warn once where it cannot."""
    why = why_not(part)
    if why is not None:
        _warn(part, why)
    return why is None


@cache
def _warn(part: str, why: str) -> None:
    warnings.warn(
        f"the fast path {part!r} stays off with SQLAlchemy {sqlalchemy.__version__}: {why}. "
        "Everything goes SQLAlchemy's own way; look for a newer async_loader.",
        RuntimeWarning,
        stacklevel=4,
    )


def why_not(part: str) -> str | None:
    """Return what of SQLAlchemy's is otherwise than a part relies on, or None."""
    return _CHECKS[part]()


@cache
def _selectin() -> str | None:
    loader = private.SelectInLoader
    if loader is None:
        return "there is no loader of that name"
    missing = private.LOADING_ASKS.difference(loader.query_info._fields)
    if missing:
        return f"its loader does not say {', '.join(sorted(missing))}"
    return (
        _differs(loader, "_load_for_path", private.LOADING_TAKES, private.KNOWN_OF_LOADING)
        or _differs(loader, "_load_via_child", private.VIA_CHILD_TAKES, optional="chunksize")
        or _differs(loader, "_load_via_parent", private.VIA_PARENT_TAKES, optional="chunksize")
    )


_CHECKS: dict[str, Callable[[], str | None]] = {"selectin": _selectin}


def _differs(
    owner: Any,
    name: str,
    takes: Sequence[str],
    known: Collection[str] | None = None,
    optional: str = "",
) -> str | None:
    """Return in what a function is not the one that was read, or None."""
    function = getattr(owner, name, None)
    if function is None:
        return f"there is no {name}"
    parameters = [*inspect.signature(function).parameters]
    if parameters[-1:] == [optional]:
        parameters.pop()
    if parameters != [*takes]:
        return f"{name} takes {', '.join(parameters)}"
    unknown = _names(function.__code__) - set(known) if known is not None else None
    return f"{name} uses {', '.join(sorted(unknown))}" if unknown else None


def _names(code: CodeType) -> set[str]:
    """Return the globals and attributes that code uses, with the code within it."""
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*map(_names, inner))

"""What is said of this machine over HTTP: of a path its last part, of a database no URL."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from sqlalchemy.engine import URL

from ..database.urls import place
from ..results.errors import ErrorResult
from ..results.run import RunResult

# Of an installed package's file, what is before the package; of all others, every folder. What
# follows a scheme, a host or a number is no path.
_FOLDERS = re.compile(
    r"""(?<![\w:/.~+=-])~?/(?:[^\s/:'"]+/)*(?:(?:site|dist)-packages/)"""
    r"""|(?<![\w:/.~+=-])~?/(?:[^\s/:'"]+/)+(?=[^\s/:'"])"""
)


# What looks like a path and is a name that somebody gave: an operation's in a threshold, a route's.
_NAMES = (
    r"\{\s*op\s*:(?:[^{}]|\{[^{}]*\})*\}",
    r"\b(?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) /\S*",
)
# Of a run's settings: names and what is said of them, by whoever wrote the scenario.
_DATA = frozenset({"threshold", "compare_fail", "label"})


def without_folders(text: str, names: Iterable[str] = ()) -> str:
    """Return a text with each absolute path cut down to its file's name; names are no paths."""
    ours = sorted(map(re.escape, filter(None, names)), key=len, reverse=True)
    whole = [rf"(?<![\w/.~+=-]){name}(?!\w|[/.]\w)" for name in ours]  # not a part of a path
    pieces = re.split(f"({'|'.join((*whole, *_NAMES))})", text)
    # Every second piece is a name.
    return "".join(p if n % 2 else _FOLDERS.sub("", p) for n, p in enumerate(pieces))


def discreet(value: Any, names: Collection[str] = ()) -> Any:
    """Return what JSON holds, with each text in it `without_folders`."""
    match value:
        case str():
            return without_folders(value, names)
        case Mapping():
            return {key: discreet(each, names) for key, each in value.items()}
        case list() | tuple():
            return [discreet(each, names) for each in value]
    return value


def discreet_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's settings with their paths cut; what names operations stays as it is."""
    return {name: each if name in _DATA else discreet(each) for name, each in settings.items()}


def names_of(result: RunResult) -> tuple[str, ...]:
    """Return what a result calls by a name of somebody's choice."""
    return (*result.by_operation, *result.settings.get("threshold", ()))


def place_of(url: URL) -> str:
    """Return where a database is: its host and port, or its file's name."""
    where = place(url)
    if url.get_backend_name() == "sqlite":
        return PurePath(where).name
    return "a socket of this machine" if where.startswith("/") else where


def published(result: RunResult) -> RunResult:
    """Return a result as everybody may have it who may watch."""
    names = names_of(result)
    environment = discreet(result.environment)
    if "database" in environment:
        environment["database"]["url"] = None
    return replace(
        result,
        workload=without_folders(result.workload),
        settings=discreet_settings(result.settings),
        environment=environment,
        errors={name: _published(error, names) for name, error in result.errors.items()},
    )


def _published(error: ErrorResult, names: Collection[str]) -> ErrorResult:
    return replace(
        error,
        sample=without_folders(error.sample, names),
        source=discreet(error.source, names),
        traceback=discreet(error.traceback, names),
    )

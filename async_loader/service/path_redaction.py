"""What is said of this machine over HTTP: of a path its last part, of a database no URL."""

from __future__ import annotations

import re
from collections.abc import Mapping
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


def without_folders(text: str) -> str:
    """Return a text with each absolute path cut down to its file's name."""
    return _FOLDERS.sub("", text)


def discreet(value: Any) -> Any:
    """Return what JSON holds, with each text in it `without_folders`."""
    match value:
        case str():
            return without_folders(value)
        case Mapping():
            return {key: discreet(each) for key, each in value.items()}
        case list() | tuple():
            return [discreet(each) for each in value]
    return value


def place_of(url: URL) -> str:
    """Return where a database is: its host and port, or its file's name."""
    where = place(url)
    if url.get_backend_name() == "sqlite":
        return PurePath(where).name
    return "a socket of this machine" if where.startswith("/") else where


def published(result: RunResult) -> RunResult:
    """Return a result as everybody may have it who may watch."""
    environment = discreet(result.environment)
    if "database" in environment:
        environment["database"]["url"] = None
    return replace(
        result,
        workload=without_folders(result.workload),
        settings=discreet(result.settings),
        environment=environment,
        errors={name: _published(error) for name, error in result.errors.items()},
    )


def _published(error: ErrorResult) -> ErrorResult:
    return replace(
        error,
        sample=without_folders(error.sample),
        source=discreet(error.source),
        traceback=discreet(error.traceback),
    )

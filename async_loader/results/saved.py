"""Results that a command wrote as JSON, read back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from .run import RunResult
from .versions import CONVERTERS, RESULT_SCHEMA


@dataclass(frozen=True, slots=True)
class Saved:
    """The runs of a file, in the order in which they ran; `is_sweep`: they are its steps."""

    runs: list[RunResult]
    is_sweep: bool = False


def read_results(path: Path) -> list[RunResult]:
    """
    Return the run in a file of `--out json=`, or the runs of a comparison in their order.

    Raises `ConfigurationError`, in one line, for a file that is missing or holds anything else.
    """
    return read_saved(path).runs


def read_saved(path: Path) -> Saved:
    """Return what a file of `--out json=` holds; raises as `read_results`."""
    document = _document(path)
    runs = document.get("runs", [document])
    if not isinstance(runs, list) or not runs or not all(isinstance(run, dict) for run in runs):
        raise ConfigurationError(f"{path} is a damaged comparison: it has no runs")
    return Saved([_result(path, run) for run in runs], is_sweep="sweep" in document)


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError):  # JSON's and Unicode's errors are ValueErrors
        raise ConfigurationError(f"{path} is damaged, or no result: it is not JSON") from None
    if not isinstance(document, dict) or not {"outcome", "runs"} & document.keys():
        raise ConfigurationError(f"{path} is not the result of a run or a comparison")
    if document.get("schema") not in (RESULT_SCHEMA, *CONVERTERS):
        raise ConfigurationError(
            f"{path} is of schema {document.get('schema')!r}: this version reads {RESULT_SCHEMA}"
        )
    return document


def _result(path: Path, document: dict[str, Any]) -> RunResult:
    try:
        return RunResult.from_dict(document)
    except ValueError as error:
        raise ConfigurationError(f"{path} is damaged: {error}") from None

"""The results that a run is held against, and the run held against them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..results.run import RunResult
from ..results.saved import read_results
from ..verdict.regression import compare_with
from .specs.load_test import BaselineSpec


def read_baselines(spec: BaselineSpec) -> dict[str, RunResult]:
    """
    Return the results that are named, by the names of their files.

    A file that holds several runs (`compare`) is as many baselines. Raises
    `ConfigurationError` for a file that is no result.
    """
    found: dict[str, RunResult] = {}
    for path in spec.files:
        runs = read_results(path)
        for number, run in enumerate(runs, 1):
            found[f"{path} run {number}" if len(runs) > 1 else str(path)] = run
    return found


def held_against(
    baselines: Mapping[str, RunResult], result: RunResult, spec: BaselineSpec
) -> RunResult:
    """Return the result with what changed since the baselines, as it is where there are none."""
    if not baselines:
        return result
    return replace(result, baseline=compare_with(baselines, result, spec.checks))

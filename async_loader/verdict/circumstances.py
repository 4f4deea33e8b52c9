"""What was not the same in two runs that are compared: settings, machine, versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..results.run import RunResult

# Settings that change what is reported, or when a run is ended, but not what is measured.
_OF_NO_MATTER = {
    *("threshold", "max_error_rate", "abort_on_fail", "require_valid", "baseline"),
    *(
        "compare_fail",
        "out",
        "html",
        "junit",
        "progress",
        "config",
        "debug",
        "grace",
        "give_up",
        "on_worker_loss",
        "explain_slowest",
        "explain_parameters",
    ),
    *("keep_data", "server_directory"),
}


def differences(baselines: Mapping[str, RunResult], result: RunResult) -> Iterator[str]:
    """Yield a sentence for each thing in which the baselines, by their files, were different."""
    told: set[str] = set()
    for name, baseline in baselines.items():
        where = f" in {name}" if len(baselines) > 1 else " in the baseline"
        for sentence in _between(baseline, result):
            if sentence not in told:
                told.add(sentence)
                yield sentence + where


def _between(baseline: RunResult, result: RunResult) -> Iterator[str]:
    if baseline.outcome != "done":
        yield f"the run was {baseline.outcome}"
    yield from _plans(baseline, result)
    then, now = _facts(baseline), _facts(result)
    for name, value in now.items():
        if name in then and then[name] != value:
            yield f"{name}: {_shown(value)} now, {_shown(then[name])}"


def _plans(baseline: RunResult, result: RunResult) -> Iterator[str]:
    """Yield the statements of both whose plans have not the same steps."""
    before = {plan.statement: plan for plan in baseline.plans or () if plan.nodes}
    for plan in result.plans or ():
        known = before.get(plan.statement)
        if known is None or not plan.nodes or known.shape == plan.shape:
            continue
        then, now = ([node.what for node in one.nodes] for one in (known, plan))
        gone = [what for what in then if what not in now]
        come = [what for what in now if what not in then]
        yield (
            f"the plan of {plan.statement}: {', '.join(come) or 'other steps'} now, "
            f"{', '.join(gone) or 'other steps'}"
        )


def _facts(result: RunResult) -> dict[str, Any]:
    """Return everything on which a result may depend, by a name to show."""
    facts: dict[str, Any] = {"workload": result.workload, "mode": result.mode}
    for name, value in result.settings.items():
        if name not in _OF_NO_MATTER | facts.keys():
            facts[f"`{name}`"] = value
    environment = result.environment
    facts |= environment.get("versions", {}) | environment.get("machine", {})
    database = environment.get("database", {})
    facts["database"] = f"{database.get('product', 'none')} {database.get('version', '')}".rstrip()
    facts["database server"] = database.get("where", "none")
    facts |= {f"database's {name}": value for name, value in database.get("settings", {}).items()}
    return facts


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)

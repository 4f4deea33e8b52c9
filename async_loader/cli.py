"""
Arguments to exit code.

The only place with signal handlers, the choice of an event loop, and a terminal.

Exit codes: 0 done · 1 too many operations failed, or none succeeded any more · 98 a figure got
worse than the baseline allows · 99 a threshold does not hold · 104 usage or configuration · 105
stopped by a signal · 107 the workload cannot be used, or its set-up raised · 110 database
unreachable or refused · 112 the measurement is not good · 113 a process of the run died · 114 a
cluster that cannot be used
"""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from .app import measure
from .commands.baselines import held_against, read_baselines
from .commands.compare import check, compare
from .commands.ingest import run_ingest_command
from .commands.jobs import run_job_command
from .commands.report import print_schema, run_report
from .commands.sweep import sweep
from .errors import AsyncLoaderError, WorkerLostError
from .outputs import DONE, check_outputs, complain, show, write_outputs
from .progress import progress_view
from .reports import comparison as comparison_report
from .reports import console as console_report
from .reports import inserts as inserts_report
from .reports import sweep as sweep_report
from .reports.comparison import group
from .reports.findings import accounting_lines
from .reports.forms import COMPARE_FORMS, RUN_FORMS, SWEEP_FORMS, Forms
from .results.run import RunResult
from .runtime import Signals, leave_errors_to_the_report, run_until_stopped
from .service.command import run_serve_command
from .settings.ingest import IngestSettings
from .settings.jobs import JOB_COMMANDS
from .settings.report import ReportSettings, SchemaSettings
from .settings.run import CompareSettings, InsertsSettings, RunSettings
from .settings.serve import ServeSettings
from .settings.sources import load
from .settings.sweep import SweepSettings
from .shards import run_as_asked
from .verdict.knee import advise
from .verdict.thresholds import verdicts_of
from .verdict.validity import doubts
from .verdict.verdict import ENDINGS

TOO_MANY_FAILED = 1
STOPPED = 105
THRESHOLD = 99
REGRESSION = 98
INVALID = 112
LOST = WorkerLostError.exit_code

INSERTS_FORMS: Forms = {"json": inserts_report.render_json}


def main(argv: Sequence[str]) -> int:
    """Run the command that the arguments name; return its exit code."""
    debug = "--debug" in argv
    try:
        settings = load(argv)
        debug = settings.debug
        return _COMMANDS[settings.command](settings)
    except (KeyboardInterrupt, asyncio.CancelledError):
        return complain("stopped", STOPPED)
    except AsyncLoaderError as error:
        if debug:
            traceback.print_exc()
        return complain(str(error), error.exit_code)
    except BrokenPipeError:
        # Whoever read our output has gone; there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return TOO_MANY_FAILED
    except Exception as error:
        if debug:
            raise
        return complain(
            f"an unexpected {type(error).__name__}: {error} (--debug shows where)", TOO_MANY_FAILED
        )


def _run(settings: RunSettings) -> int:
    check_outputs(settings.outputs, RUN_FORMS)
    baselines = read_baselines(settings)
    if not settings.debug:
        leave_errors_to_the_report()
    with Signals() as signals:
        with progress_view(sys.stderr, settings.progress) as view:
            finished = signals.run(
                lambda stop: run_as_asked(
                    settings, stop=stop, on_progress=view.update, say=view.phase, note=view.note
                ),
                settings.loop,
            )
        result = held_against(baselines, finished.result, settings)
        shown = show(partial(console_report.render, result), settings.outputs)
        code = _verdict(result, settings) or shown
        code = write_outputs(settings.outputs, RUN_FORMS, result, code)
        if finished.cleanup_error is not None:
            code = complain(str(finished.cleanup_error), code or finished.cleanup_error.exit_code)
        return STOPPED if signals.stop.requested.is_set() else code


def _compare(settings: CompareSettings) -> int:
    check_outputs(settings.outputs, COMPARE_FORMS)
    check(settings)
    runs: list[RunResult] = []
    code = DONE

    def say(text: str) -> None:
        sys.stderr.write(f"{text}\n")

    try:
        for result in compare(settings, say):
            runs.append(result)
            code = code or _verdict(result, settings)
    except AsyncLoaderError as error:
        code = complain(str(error), error.exit_code)
    if not runs:
        return code or STOPPED
    compared = group(runs)
    shown = show(partial(comparison_report.render, compared), settings.outputs)
    code = code or shown
    if len(runs) < settings.rounds * len(settings.modes):
        code = code or STOPPED
    return write_outputs(settings.outputs, COMPARE_FORMS, compared, code)


def _sweep(settings: SweepSettings) -> int:
    check_outputs(settings.outputs, SWEEP_FORMS)
    steps: list[RunResult] = []
    code = DONE
    try:
        for result in sweep(settings, lambda text: sys.stderr.write(f"{text}\n")):
            steps.append(result)  # noqa: PERF402  those before an error are to be kept
    except AsyncLoaderError as error:
        code = complain(str(error), error.exit_code)
    if not steps:
        return code or STOPPED
    code = code or show(partial(sweep_report.render, steps), settings.outputs)
    if steps[-1].outcome == "interrupted":
        code = code or STOPPED
    elif advise(steps, settings.latency_limit) is None:
        code = code or complain("no step of the sweep is good", THRESHOLD)
    return write_outputs(settings.outputs, SWEEP_FORMS, steps, code)


def _inserts(settings: InsertsSettings) -> int:
    check_outputs(settings.outputs, INSERTS_FORMS)
    measures = run_until_stopped(lambda _stop: measure(settings), "auto", stock_collector=True)
    shown = show(
        partial(inserts_report.render, measures, latency=settings.latency), settings.outputs
    )
    return write_outputs(settings.outputs, INSERTS_FORMS, measures, shown)


def _verdict(result: RunResult, settings: RunSettings | CompareSettings) -> int:
    if result.outcome == "interrupted":
        return STOPPED
    if result.outcome == "aborted":
        return complain(
            f"gave up: no operation has succeeded for {settings.give_up:g} s (--give-up); "
            f"the most frequent error: {next(iter(result.errors))}",
            TOO_MANY_FAILED,
        )
    if result.outcome in ("lost", "hung"):
        return _ended_from_outside(result)
    if result.error_rate > settings.max_error_rate:
        return complain(
            f"{result.error_rate:.2%} of the operations failed, more than --max-error-rate "
            f"{settings.max_error_rate:.2%}",
            TOO_MANY_FAILED,
        )
    if settings.require_valid and (found := doubts(result)):
        return complain(
            f"the measurement is not good: {', '.join(doubt.about for doubt in found)}", INVALID
        )
    return _asked_of_it(result)


def _ended_from_outside(result: RunResult) -> int:
    if result.outcome == "lost":
        lost = ", ".join(f"{shard.name} {shard.lost}" for shard in result.shards if shard.lost)
        if not lost:  # the whole of it, and whoever saw it has said how
            return LOST
        return complain(f"{lost} (--on-worker-loss continue goes on without it)", LOST)
    return complain(ENDINGS["hung"], THRESHOLD)


def _asked_of_it(result: RunResult) -> int:
    """Return the code for its thresholds and its baseline."""
    if result.not_started and result.outcome == "done":
        return complain(next(accounting_lines(result)), THRESHOLD)
    broken = [verdict for verdict in verdicts_of(result) if not verdict.passed]
    if broken or result.outcome == "failed":
        names = ", ".join(verdict.threshold.text for verdict in broken)
        return complain(f"a threshold does not hold: {names}", THRESHOLD)
    if result.baseline is not None and result.baseline.regressions:
        names = "; ".join(change.sentence for change in result.baseline.regressions)
        return complain(f"worse than the baseline: {names}", REGRESSION)
    return DONE


_COMMANDS: dict[str, Callable[[Any], int]] = {
    RunSettings.command: _run,
    CompareSettings.command: _compare,
    SweepSettings.command: _sweep,
    InsertsSettings.command: _inserts,
    ReportSettings.command: run_report,
    SchemaSettings.command: print_schema,
    IngestSettings.command: run_ingest_command,
    ServeSettings.command: run_serve_command,
    **{model.command: run_job_command for model in JOB_COMMANDS},
}
